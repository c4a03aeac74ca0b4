// Package schemas gives Routes and Connectors the texts of the schemas that they keep in ConfigMaps. Users' ConfigMaps are theirs, and may be many and
// large: their metadata alone is watched, from when the first reference is met; a text is read when it is needed, and kept within a bound.
package schemas
