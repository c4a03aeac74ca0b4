// Package rawjson steps over JSON where it lies, without making values. It takes exactly what sdk.DecodeJSON takes, which a fuzz test holds it
// to; whoever gets a No asks sdk.DecodeJSON for the error. Package sdk's decoder and package steps build on it: fields of a body are read, and
// redacted, in its own bytes.
//
// Every function is given the document and an offset into it, and gives the offset after what it stepped over, or Invalid.
package rawjson
