package http

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/metip/metip/connectors/sdk"
)

// checkFormat refuses a body that is not in the source's format: JSON that is UTF-8 and not nested too deeply, well-formed XML without a
// document type, UTF-8 text. Anything is binary.
func checkFormat(format string, data []byte) error {
	switch format {
	case sdk.FormatJSON:
		if validJSON(data) {
			return nil
		}
		if !utf8.Valid(data) {
			return errors.New("the body is not JSON: it is not valid UTF-8")
		}
		return sdk.CheckFormat(format, data)
	case sdk.FormatXML:
		if err := sdk.CheckFormat(format, data); err != nil {
			return err
		}
		if err := checkXML(data); err != nil {
			return fmt.Errorf("the body is not XML that is accepted: %w", err)
		}
		return nil
	default:
		return sdk.CheckFormat(format, data)
	}
}

// checkXML reads a document through: one root element, nested at most sdk.MaxDepth deep, and no document type, so that nobody
// further down is tempted to expand entities.
func checkXML(data []byte) error {
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
	depth, roots := 0, 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			if depth++; depth > sdk.MaxDepth {
				return fmt.Errorf("elements are nested deeper than %d", sdk.MaxDepth)
			}
		case xml.EndElement:
			depth--
		case xml.Directive:
			return errors.New("it has a document type or another declaration (<!...>): send it without")
		case xml.CharData:
			if depth == 0 && len(bytes.TrimSpace(t)) > 0 {
				return errors.New("there is text outside the root element")
			}
		}
	}
	if depth != 0 || roots != 1 {
		return errors.New("it has not exactly one complete root element")
	}
	return nil
}

// contentType is what the message says of its body. Nothing, and what `curl -d` says by itself, become the format's own.
func contentType(format, declared string) string {
	if declared != "" && !(format == sdk.FormatJSON && mediaType(declared) == "application/x-www-form-urlencoded") {
		return declared
	}
	switch format {
	case sdk.FormatJSON:
		return "application/json"
	case sdk.FormatXML:
		return "application/xml"
	case sdk.FormatText:
		return "text/plain; charset=utf-8"
	default:
		return "application/octet-stream"
	}
}

// mediaType is the part of a content type before its parameters, in lower case.
func mediaType(contentType string) string {
	base, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(base))
}

// foreignCharset is the character set that a content type declares, when it is another than UTF-8.
func foreignCharset(contentType string) string {
	if !strings.Contains(contentType, ";") {
		return ""
	}
	_, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return ""
	}
	switch charset := strings.ToLower(parameters["charset"]); charset {
	case "", "utf-8", "utf8", "us-ascii":
		return ""
	default:
		return charset
	}
}

func isJSON(media string) bool {
	return strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json")
}
