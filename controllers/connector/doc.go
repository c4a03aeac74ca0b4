// Package connector reconciles Connectors: it compiles the configuration of the pods from the Connector, its Integration and the Routes that end in
// it, gives them a broker user that can reach their own subjects and nothing else, runs them, and says what they report.
package connector
