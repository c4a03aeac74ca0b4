// Package openapi compiles OpenAPI documents, 3.0 and 3.1, and judges calls by them: the engine does so for a service that has one, and the
// webhook compiles with the same code, so that what is accepted runs. It reads what says which requests there are: paths, methods, parameters,
// bodies and answers. What is a matter of hosts and users (servers, security) is the Connector's; callbacks, links and webhooks are not looked at.
//
// Of parameters it knows the styles that carry plain values and lists: simple in the path and in headers, form in the query. The value of any
// other is only asked to be there. Bodies that are JSON are judged by their schema; of others only the media type counts.
package openapi
