// Package e2e tests MetIP as its users meet it: installed from config/default on a real cluster, with a real database and a real HTTP
// system as targets. Every message is accounted for by its id. Each spec has a namespace of its own, and leaves nothing behind;
// specs that harm a broker have a Broker of their own.
package e2e
