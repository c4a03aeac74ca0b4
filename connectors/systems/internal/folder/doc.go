// Package folder takes in the files of a folder: it finds those that are complete, splits them into records, publishes these, and puts the files
// away. Where the folder is it does not know: FS is a volume here, and can be a server's.
//
// A record is named by its file's path, time and size, and by where it begins, so that reading again makes the same messages. How far a file was
// read is noted beside it, in .metip, so that a file of any size is not read again from its beginning.
package folder
