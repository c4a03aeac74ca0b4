// Catalogdoc writes connectors/catalog/catalog.json from the CRDs: the options of every system as JSON Schema, so that what the API server checks, what
// kubectl explain says and what tools read are the same.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: catalogdoc <connectors' CRD> <routes' CRD> > connectors/catalog/catalog.json")
		os.Exit(2)
	}
	if err := write(os.Stdout, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "catalogdoc:", err)
		os.Exit(1)
	}
}

// document is what is written.
type document struct {
	Schema     string    `json:"$schema"`
	APIVersion string    `json:"apiVersion"`
	Systems    []*system `json:"systems"`
}

// system and the schemas of its options, by role.
type system struct {
	Name      string          `json:"name"`
	Source    json.RawMessage `json:"source,omitempty"`
	Sink      json.RawMessage `json:"sink,omitempty"`
	Operation json.RawMessage `json:"operation,omitempty"`
	Service   json.RawMessage `json:"service,omitempty"`
}

// A member of a union is a system if it is not one of these, which say what is common to all.
var common = map[string]bool{"eventType": true, "format": true, "partitionKey": true, "schema": true, "history": true, "timeout": true, "limits": true, "circuitBreaker": true, "cache": true, "openAPI": true}

func write(w io.Writer, connectors, routes string) error {
	connector, version, err := read(connectors)
	if err != nil {
		return err
	}
	route, _, err := read(routes)
	if err != nil {
		return err
	}
	systems := map[string]*system{}
	for _, role := range []struct {
		union *apiextensions.JSONSchemaProps
		set   func(*system, json.RawMessage)
	}{
		{at(connector, "spec", "source"), func(s *system, raw json.RawMessage) { s.Source = raw }},
		{at(connector, "spec", "sink"), func(s *system, raw json.RawMessage) { s.Sink = raw }},
		{at(connector, "spec", "service"), func(s *system, raw json.RawMessage) { s.Service = raw }},
		{at(route, "spec", "to", "", "operation"), func(s *system, raw json.RawMessage) { s.Operation = raw }},
	} {
		if role.union == nil {
			return fmt.Errorf("the CRDs have no such union")
		}
		for name, schema := range role.union.Properties {
			if common[name] || schema.Type != "object" {
				continue
			}
			raw, err := json.Marshal(schema)
			if err != nil {
				return err
			}
			if systems[name] == nil {
				systems[name] = &system{Name: name}
			}
			role.set(systems[name], raw)
		}
	}
	d := document{Schema: "https://json-schema.org/draft/2020-12/schema", APIVersion: version}
	for _, name := range slices.Sorted(maps.Keys(systems)) {
		d.Systems = append(d.Systems, systems[name])
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(d); err != nil {
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, out.Bytes(), "", " "); err != nil {
		return err
	}
	_, err = w.Write(indented.Bytes())
	return err
}

// read a CRD's schema, and its API version.
func read(file string) (*apiextensions.JSONSchemaProps, string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, "", err
	}
	var crd apiextensions.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &crd); err != nil {
		return nil, "", err
	}
	if len(crd.Spec.Versions) != 1 {
		return nil, "", fmt.Errorf("%s has %d versions", file, len(crd.Spec.Versions))
	}
	v := crd.Spec.Versions[0]
	return v.Schema.OpenAPIV3Schema, crd.Spec.Group + "/" + v.Name, nil
}

// at a path of properties; an empty name is the items of a list. Nil where there is none.
func at(s *apiextensions.JSONSchemaProps, path ...string) *apiextensions.JSONSchemaProps {
	for _, name := range path {
		if name == "" {
			if s.Items == nil || s.Items.Schema == nil {
				return nil
			}
			s = s.Items.Schema
			continue
		}
		next, ok := s.Properties[name]
		if !ok {
			return nil
		}
		s = &next
	}
	return s
}
