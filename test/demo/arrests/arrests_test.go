package arrests_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/metip/metip/test/demo/arrests"
)

const dataFile = "../data/arrests.ndjson"

// The file is what Generate makes: whoever changes one changes the other (go run ./test/demo/cmd/demo generate).
func TestDataFileIsGenerated(t *testing.T) {
	var want bytes.Buffer
	if err := arrests.Write(&want, arrests.Generate(1000)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dataFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s differs from what Generate makes", dataFile)
	}
}

func TestFates(t *testing.T) {
	f, err := os.Open(dataFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := arrests.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	var filtered, database, caseAPI, unicode, noMiddle int
	ids := map[string]bool{}
	for _, l := range lines {
		ids[l.ArrestID] = true
		fate := l.Fate()
		if fate.Filtered {
			filtered++
		}
		if fate.DatabaseRefuses {
			database++
		}
		if fate.CaseAPIRefuses {
			caseAPI++
		}
		if len(l.Detainee.Surname) != len([]rune(l.Detainee.Surname)) {
			unicode++
		}
		if len(l.Detainee.MiddleNames) == 0 {
			noMiddle++
		}
	}
	if len(lines) != 1000 || len(ids) != 1000 {
		t.Errorf("%d records with %d ids, want 1000 of each", len(lines), len(ids))
	}
	if filtered < 350 || filtered > 450 {
		t.Errorf("%d records are not bound for court, want about 400", filtered)
	}
	if database != 3 || caseAPI != 2 {
		t.Errorf("the database refuses %d and the case API %d, want 3 and 2", database, caseAPI)
	}
	if unicode < 100 || noMiddle < 300 {
		t.Errorf("%d surnames beyond ASCII and %d people without a middle name: too uniform", unicode, noMiddle)
	}
}
