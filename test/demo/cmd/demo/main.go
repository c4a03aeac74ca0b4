package main

import (
	"os"

	"github.com/metip/metip/test/demo/arrests"
)

func main() { _ = arrests.Write(os.Stdout, arrests.Generate(1000)) }
