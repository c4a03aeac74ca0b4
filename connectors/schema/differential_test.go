package schema

// documents that every schema of differential judges.
var documents = []string{
	`null`, `true`, `0`, `-0`, `1`, `1.0`, `1.5`, `1e2`, `9223372036854775808`, `0.3`, `""`, `"a"`, `"héllo"`, `"2026-02-30"`, `[]`, `[1]`, `[1,2]`, `[1,1.0]`, `["a",1,true]`,
	`[[1],[1]]`, `[{"a":1,"b":2},{"b":2,"a":1}]`, `{}`, `{"a":1}`, `{"a":"x","b":2}`, `{"a":1,"b":"y","c":null}`, `{"foo":{"foo":{"bar":1}}}`, `[1,2,3,4,5,6,7,8,9,9]`,
	`[1,2,3,4,5,6,7,8,9,"9"]`, `{"x-a":1,"x-b":"s","c":1}`, `{"tree":{"tree":{}}}`,
}

// differential are pairs of a schema and a document: every keyword, and where they touch.
var differential = [][2]string{
	{`true`, `1`}, {`false`, `1`}, {`{}`, `{}`}, {`{"type":"integer"}`, `1.0`}, {`{"type":["string","null"]}`, `null`}, {`{"type":"number"}`, `1e400`},
	{`{"const":1}`, `1.0`}, {`{"const":{"a":[1,{"b":null}]}}`, `{"a":[1e0,{"b":null}]}`}, {`{"const":false}`, `0`}, {`{"enum":[0,"0",false,null,[0],{"a":0}]}`, `{"a":0.0}`},
	{`{"enum":[1e2,0.5,-3]}`, `100`}, {`{"enum":[12345678901234567890]}`, `12345678901234567890.0`},
	{`{"minimum":1,"maximum":10}`, `10.0`}, {`{"exclusiveMinimum":1,"minimum":1}`, `1`}, {`{"exclusiveMaximum":1.5,"maximum":2}`, `1.5`}, {`{"multipleOf":0.1}`, `0.3`},
	{`{"multipleOf":3}`, `9`}, {`{"multipleOf":1e-5}`, `0.00075`}, {`{"minLength":2,"maxLength":3}`, `"héé"`}, {`{"pattern":"^a.c$"}`, `"abc"`}, {`{"pattern":"b"}`, `"abc"`},
	{`{"format":"date"}`, `"2026-02-28"`}, {`{"format":"email"}`, `"a@b"`}, {`{"format":"unheard"}`, `"a"`}, {`{"format":"regex"}`, `"("`}, {`{"format":"uuid"}`, `"00000000-0000-0000-0000-000000000000"`},
	{`{"format":"ipv4"}`, `"1.2.3.256"`}, {`{"format":"date-time"}`, `"2026-11-23T00:00:00+01:00"`}, {`{"format":"uri"}`, `"http://x/{"`},
	{`{"items":{"type":"integer"}}`, `[1,2,"x"]`}, {`{"prefixItems":[{"type":"string"}],"items":false}`, `["a",1]`}, {`{"prefixItems":[{},{}],"unevaluatedItems":false}`, `[1,2,3]`},
	{`{"contains":{"const":1}}`, `[2,1]`}, {`{"contains":{"const":1},"minContains":2,"maxContains":3}`, `[1,1,1,1]`}, {`{"contains":{"const":1},"minContains":0}`, `[]`},
	{`{"contains":{"type":"integer"},"unevaluatedItems":false}`, `[1,"x"]`}, {`{"uniqueItems":true}`, `[{"a":1},{"a":1.0}]`}, {`{"minItems":1,"maxItems":2}`, `[1,2,3]`},
	{`{"allOf":[{"prefixItems":[true]}],"unevaluatedItems":{"type":"string"}}`, `[1,"a",2]`}, {`{"if":{"prefixItems":[{"const":1}]},"then":{"prefixItems":[true,true]},"unevaluatedItems":false}`, `[1,2]`},
	{`{"required":["a"],"minProperties":1,"maxProperties":2}`, `{"a":1,"b":2,"c":3}`}, {`{"properties":{"a":{"type":"string"}},"additionalProperties":false}`, `{"a":"x","b":1}`},
	{`{"patternProperties":{"^x-":{"type":"integer"},"a$":{"minimum":1}},"additionalProperties":{"type":"null"}}`, `{"x-a":1,"b":null}`}, {`{"propertyNames":{"maxLength":2}}`, `{"abc":1}`},
	{`{"propertyNames":false}`, `{}`}, {`{"dependentRequired":{"a":["b"]}}`, `{"a":1}`}, {`{"dependentSchemas":{"a":{"required":["b"]}}}`, `{"a":1,"b":1}`},
	{`{"dependentSchemas":{"a":{"properties":{"b":true}}},"properties":{"a":true},"unevaluatedProperties":false}`, `{"a":1,"b":1}`},
	{`{"not":{"type":"string"}}`, `"a"`}, {`{"not":{"not":{"type":"string"}}}`, `1`}, {`{"allOf":[{"minimum":1},{"maximum":2}]}`, `3`}, {`{"anyOf":[{"type":"string"},{"minimum":2}]}`, `1`},
	{`{"oneOf":[{"minimum":1},{"maximum":2}]}`, `1.5`}, {`{"oneOf":[{"type":"integer"},{"minLength":2}]}`, `"a"`}, {`{"if":{"minimum":5},"then":{"multipleOf":2},"else":{"maximum":1}}`, `7`},
	{`{"if":{"properties":{"a":{"const":1}},"required":["a"]},"then":{"properties":{"b":true}},"else":{"properties":{"c":true}},"unevaluatedProperties":false}`, `{"a":1,"b":1}`},
	{`{"$ref":"#/$defs/a","$defs":{"a":{"type":"integer"}},"maximum":3}`, `4`}, {`{"$ref":"#a","$defs":{"x":{"$anchor":"a","type":"string"}}}`, `1`}, {`{"$id":"metip:///s","$defs":{"x":{"$id":"t","type":"string"}},"$ref":"t"}`, `1`},
	{`{"properties":{"foo":{"$ref":"#"}},"additionalProperties":false}`, `{"foo":{"bar":1}}`}, {`{"$dynamicAnchor":"n","properties":{"foo":{"$dynamicRef":"#n"}},"unevaluatedProperties":false}`, `{"foo":{"foo":{"x":1}}}`},
	{`{"properties":{"a":true},"unevaluatedProperties":false}`, `{"a":1,"b":1}`}, {`{"allOf":[{"properties":{"a":true}}],"unevaluatedProperties":{"type":"integer"}}`, `{"a":"x","b":"y"}`},
	{`{"properties":{"a":true},"allOf":[{"unevaluatedProperties":false}]}`, `{"a":1}`}, {`{"anyOf":[{"properties":{"a":{"const":1}},"required":["a"]},{"properties":{"b":{"const":2}},"required":["b"]}],"unevaluatedProperties":false}`, `{"a":1,"b":2}`},
	{`{"oneOf":[{"properties":{"a":{"const":1}},"required":["a"]},{"properties":{"b":true},"required":["b"]}],"unevaluatedProperties":false}`, `{"a":2,"b":2}`},
	{`{"not":{"properties":{"a":{"const":1}}},"unevaluatedProperties":false}`, `{"a":2}`}, {`{"allOf":[{"unevaluatedProperties":true}],"unevaluatedProperties":false}`, `{"a":2}`},
	{`{"additionalProperties":{"type":"integer"},"unevaluatedProperties":false}`, `{"a":2}`}, {`{"patternProperties":{"^a":true},"unevaluatedProperties":false}`, `{"ab":2}`},
	{`{"anyOf":[{"unevaluatedProperties":false},{"properties":{"c":true}}],"properties":{"a":true},"unevaluatedProperties":false}`, `{"a":1,"c":1}`},
	{`{"$ref":"#/$defs/b","unevaluatedProperties":false,"$defs":{"b":{"properties":{"a":true}}}}`, `{"a":1,"x":1}`},
	{`{"allOf":[{"contains":{"type":"string"}},{"prefixItems":[true]}],"unevaluatedItems":false}`, `[1,"a"]`}, {`{"anyOf":[{"items":{"type":"string"}},{"prefixItems":[true]}],"unevaluatedItems":false}`, `["a","b"]`},
	{`{"$schema":"http://json-schema.org/draft-07/schema#","items":[{"type":"string"}],"additionalItems":false,"definitions":{"a":{"type":"string"}},"dependencies":{"a":["b"],"c":{"required":["d"]}}}`, `["a",1]`},
	{`{"$schema":"http://json-schema.org/draft-07/schema#","$ref":"#/definitions/a","maximum":1,"definitions":{"a":{"type":"integer"}}}`, `5`},
	{`{"$schema":"http://json-schema.org/draft-04/schema#","minimum":1,"exclusiveMinimum":true}`, `1`}, {`{"$schema":"http://json-schema.org/draft-04/schema#","type":"integer"}`, `1.0`},
	{`{"$schema":"http://json-schema.org/draft-06/schema#","contains":{"const":1},"propertyNames":{"maxLength":1}}`, `{"ab":1}`},
	{`{"$schema":"https://json-schema.org/draft/2019-09/schema","items":[true],"additionalItems":{"type":"string"},"unevaluatedItems":false,"$recursiveAnchor":true,"properties":{"tree":{"$recursiveRef":"#"}},"unevaluatedProperties":false}`, `{"tree":{"x":1}}`},
	{`{"$schema":"https://json-schema.org/draft/2019-09/schema","items":[true],"contains":{"const":2},"unevaluatedItems":false}`, `[1,2]`},
	{`{"$schema":"https://json-schema.org/draft/2019-09/schema","dependentRequired":{"a":["b"]},"minContains":2,"contains":true}`, `{"a":1}`},
	{`{"deprecated":true,"default":1,"examples":[1],"readOnly":true,"contentEncoding":"base64","contentMediaType":"application/json","contentSchema":false}`, `"!"`},
}
