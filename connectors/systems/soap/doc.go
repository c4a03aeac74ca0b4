// Package soap joins systems that speak SOAP 1.1 or 1.2: an endpoint that serves its WSDL, a call for each message, and a service whose callers speak
// JSON. What is on the bus is the element within the envelope's Body, as XML or as JSON; envelopes are made and taken off here. Connections,
// admission and limits are those of package http.
package soap
