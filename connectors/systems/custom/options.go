package custom

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"github.com/metip/metip/connectors/sdk"
)

// Paths of the contract: what the container serves, and what it calls.
const (
	pathCheck    = "/check"
	pathCalls    = "/calls"
	pathMessages = "/messages" // the sink's container serves it, and the source's calls it
	pathPosition = "/position"
)

// options are the JSON of the API's members, with the addresses that the operator adds.
type options struct {
	// Bus is the loopback address at which the engine listens for the container of a source; Container is the one that the container listens at.
	Bus       string `json:"bus"`
	Container string `json:"container"`
	// Request is a sink's, and replaced by a Route's operation.
	Request json.RawMessage `json:"request"`
	// What is the operator's: it becomes the pod.
	Image     json.RawMessage `json:"image"`
	Command   json.RawMessage `json:"command"`
	Args      json.RawMessage `json:"args"`
	Env       json.RawMessage `json:"env"`
	Resources json.RawMessage `json:"resources"`
	Ports     json.RawMessage `json:"ports"`
}

func decode(raw json.RawMessage) (options, error) {
	var o options
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	if err := loopback(o.Container); err != nil {
		return o, fmt.Errorf("container: %w", err)
	}
	return o, nil
}

// loopback refuses an address that others than the pod's containers reach: nobody proves anything there.
func loopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return errors.New("the address is not the loopback's")
	}
	return nil
}

// request is the JSON of the API's CustomRequest.
type request struct {
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"`
}

// httpRequest is that of package http.
func httpRequest(raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var r request
	if err := sdk.DecodeOptions(raw, &r); err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Path    string            `json:"path,omitempty"`
		Headers map[string]string `json:"headers,omitempty"`
	}{r.Path, r.Headers})
}
