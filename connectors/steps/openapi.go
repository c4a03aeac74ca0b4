package steps

import "github.com/metip/metip/connectors/openapi"

// CheckOpenAPI tells whether a document, as JSON, is one that the data plane can hold calls to (contract.Service.OpenAPI).
func CheckOpenAPI(text string) error {
	_, err := openapi.Compile(text)
	return err
}
