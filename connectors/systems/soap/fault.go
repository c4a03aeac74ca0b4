package soap

import (
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/metip/metip/connectors/systems/internal/oneline"
	"github.com/metip/metip/connectors/systems/internal/xmlns"
)

// fault of either version.
type fault struct {
	// code is the local part: Client, Sender, Server, Receiver, ..., or the system's own.
	code string
	// subcodes of SOAP 1.2, or what follows the first dot of a code of 1.1, outermost first.
	subcodes []string
	reason   string
	// detail is XML, or empty.
	detail []byte
}

// blame says whose fault it is.
type blame uint8

const (
	// unknown codes are the system's own.
	blameUnknown blame = iota
	// blameSender: the same message would be refused again.
	blameSender
	blameReceiver
	// blameCredentials: the system does not accept who we say we are.
	blameCredentials
)

func (f *fault) blame() blame {
	for _, code := range append([]string{f.code}, f.subcodes...) {
		switch code {
		case "FailedAuthentication", "InvalidSecurityToken", "InvalidSecurity", "FailedCheck", "SecurityTokenUnavailable", "UnsupportedSecurityToken", "MessageExpired", "Authentication":
			return blameCredentials
		}
	}
	switch f.code {
	case "Client", "Sender", "MustUnderstand", "VersionMismatch", "DataEncodingUnknown":
		return blameSender
	case "Server", "Receiver":
		return blameReceiver
	}
	return blameUnknown
}

// codes as one text: Client.Authentication.
func (f *fault) codes() string {
	return strings.Join(append([]string{f.code}, f.subcodes...), ".")
}

// is tells whether the fault has a code, by its local name.
func (f *fault) is(codes []string) bool {
	for _, wanted := range codes {
		if wanted == f.code || wanted == f.codes() {
			return true
		}
		for _, sub := range f.subcodes {
			if wanted == sub {
				return true
			}
		}
	}
	return false
}

func (f *fault) Error() string {
	text := "SOAP fault " + oneline.Excerpt(f.codes(), 80)
	if f.reason != "" {
		text += ": " + oneline.Excerpt(f.reason, 300)
	}
	return text
}

type faultXML struct {
	// SOAP 1.1
	Code   string `xml:"faultcode"`
	String string `xml:"faultstring"`
	Detail *inner `xml:"detail"`
	// SOAP 1.2
	Code12 *struct {
		Value string   `xml:"Value"`
		Sub   *subcode `xml:"Subcode"`
	} `xml:"Code"`
	Reason []struct {
		Lang string `xml:"lang,attr"`
		Text string `xml:",chardata"`
	} `xml:"Reason>Text"`
	Detail12 *inner `xml:"Detail"`
}

type inner struct {
	XML []byte `xml:",innerxml"`
}

type subcode struct {
	Value string   `xml:"Value"`
	Sub   *subcode `xml:"Subcode"`
}

const maxSubcodes = 8

func parseFault(raw []byte) (*fault, error) {
	var x faultXML
	if err := xml.Unmarshal(raw, &x); err != nil {
		return nil, fmt.Errorf("the fault is none: %w", err)
	}
	f := &fault{}
	detail := x.Detail
	if x.Code12 != nil {
		f.code = local(x.Code12.Value)
		for sub := x.Code12.Sub; sub != nil && len(f.subcodes) < maxSubcodes; sub = sub.Sub {
			f.subcodes = append(f.subcodes, local(sub.Value))
		}
		for _, reason := range x.Reason { // the one in English, or the first
			if f.reason == "" || strings.HasPrefix(reason.Lang, "en") {
				f.reason = strings.TrimSpace(reason.Text)
			}
		}
		detail = x.Detail12
	} else {
		parts := strings.Split(local(x.Code), ".")
		f.code, f.subcodes = parts[0], parts[1:min(len(parts), maxSubcodes)]
		f.reason = strings.TrimSpace(x.String)
	}
	if detail != nil {
		f.detail = detail.XML
	}
	return f, nil
}

// local part of a qualified name.
func local(name string) string {
	name = strings.TrimSpace(name)
	return name[strings.LastIndexByte(name, ':')+1:]
}

// render a fault as the element of a version. Its subcode, if it has one, is of WS-Security.
func (f *fault) render(v version) []byte {
	var out []byte
	if v == version11 {
		out = append(append(out, `<soap:Fault><faultcode xmlns:wsse="`...), nsSecurity...)
		out = append(xmlns.AppendText(append(out, `">`...), f.qualified(v)), "</faultcode><faultstring>"...)
		return append(xmlns.AppendText(out, f.reason), "</faultstring></soap:Fault>"...)
	}
	out = append(out, "<soap:Fault><soap:Code><soap:Value>"...)
	out = append(xmlns.AppendText(out, f.qualified(v)), "</soap:Value>"...)
	if len(f.subcodes) > 0 {
		out = append(append(out, `<soap:Subcode><soap:Value xmlns:wsse="`...), nsSecurity...)
		out = append(xmlns.AppendText(append(out, `">wsse:`...), f.subcodes[0]), "</soap:Value></soap:Subcode>"...)
	}
	out = append(out, `</soap:Code><soap:Reason><soap:Text xml:lang="en">`...)
	return append(xmlns.AppendText(out, f.reason), "</soap:Text></soap:Reason></soap:Fault>"...)
}

// qualified code of a version: 1.1 has no subcodes, and gives WS-Security's own in their place.
func (f *fault) qualified(v version) string {
	switch {
	case v == version12:
		switch f.code {
		case "Client":
			return "soap:Sender"
		case "Server":
			return "soap:Receiver"
		}
	case len(f.subcodes) > 0:
		return "wsse:" + f.subcodes[0]
	}
	return "soap:" + f.code
}
