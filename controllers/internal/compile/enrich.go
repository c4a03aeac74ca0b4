package compile

import (
	"time"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// The API's defaults of the step enrich, for objects that were made without them.
const (
	DefaultEnrichTimeout = 3 * time.Second
	DefaultEnrichEntries = 1000
)

func enrich(e *v1alpha1.Enrich) *contract.Enrich {
	if e == nil || e.Call == nil && e.Table == nil {
		return nil
	}
	out := &contract.Enrich{Into: e.Into, Default: string(e.Default), Timeout: contract.Duration(duration(&e.Timeout, DefaultEnrichTimeout))}
	if t := e.Table; t != nil {
		out.Table, out.Key = string(t.Name), string(t.Key)
	}
	if c := e.Call; c != nil {
		out.Service, out.Method, out.Path, out.Body = string(c.Connector), string(c.Method), string(c.Path), string(c.Body)
		out.Query, out.Headers = texts(c.Query), texts(c.Headers)
		if out.Method == "" {
			out.Method = string(v1alpha1.EnrichMethodGet)
		}
	}
	if c := e.Cache; c != nil {
		out.Cache = &contract.EnrichCache{TTL: contract.Duration(duration(&c.TTL, 0)), Entries: DefaultEnrichEntries}
		if c.Entries != nil {
			out.Cache.Entries = int(*c.Entries)
		}
	}
	return out
}

func texts(templates map[string]v1alpha1.Template) map[string]string {
	if len(templates) == 0 {
		return nil
	}
	out := make(map[string]string, len(templates))
	for name, text := range templates {
		out[name] = string(text)
	}
	return out
}
