// Package codec turns bodies from one format into another: JSON, XML, CSV, Avro, and the character sets that older systems speak. docs/formats.md says
// what becomes of what. Package steps calls it, for `convert` and `validate`.
//
// Bodies come from anybody. Nothing here takes more memory than in proportion to the body and maxOutput, nests deeper than sdk.MaxDepth,
// expands an entity or follows a reference. Output depends on input alone: members keep the order in which the body has them, and numbers
// the digits.
package codec

import "errors"

// maxOutput of a conversion, in bytes: a short body with long names can become a long one.
const maxOutput = 32 << 20

var errTooLong = errors.New("the result is longer than 32 MiB")
