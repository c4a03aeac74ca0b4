// Package tlsfiles makes TLS configurations of the files that are mounted in a connector pod, follows their rotation, and tells
// certificate errors from others. Systems that dial use Client; systems that listen use Server.
package tlsfiles
