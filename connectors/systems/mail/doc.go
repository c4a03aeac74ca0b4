// Package mail submits messages to a mail server, by SMTP.
//
// Messages are made, and the protocol is spoken, by github.com/wneessen/go-mail. Its own client that dials, sends and takes errors together is left
// out for the layer below (its package smtp): one connection is to be kept for many messages, each with a result of its own, over a connection
// that sdk.Runtime.Dial has made, with the server's limits looked at before anything is sent.
package mail
