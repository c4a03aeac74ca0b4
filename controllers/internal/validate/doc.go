// Package validate checks what the schema cannot: that expressions, templates, programs and schedules compile, and that a template's
// annotations are allowed. The webhook and the controllers say the same, because both ask here.
package validate
