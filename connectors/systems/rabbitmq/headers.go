package rabbitmq

import (
	"strings"

	"github.com/metip/metip/connectors/systems/internal/binding"
)

// ownNames are those of the properties below, which no header may stand in for.
var ownNames = map[string]bool{
	nameCorrelationID: true, nameReplyTo: true, nameAppID: true, nameUserID: true, nameExchange: true, nameRoutingKey: true,
}

// Names of the extension attributes that properties become.
const (
	nameCorrelationID = "correlationid"
	nameReplyTo       = "replyto"
	nameAppID         = "appid"
	nameUserID        = "userid"
	nameExchange      = "exchange"
	nameRoutingKey    = "routingkey"
)

// extension is the name of the extension attribute that a header becomes. The server's own headers, x-..., become none.
func extension(header string) (string, bool) {
	if strings.HasPrefix(strings.ToLower(header), "x-") {
		return "", false
	}
	name, ok := binding.Extension(header)
	return name, ok && !ownNames[name]
}
