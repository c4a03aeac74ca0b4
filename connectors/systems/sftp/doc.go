// Package sftp joins SFTP servers: a source that takes in the files of a folder, and a sink that writes a file for each message. What is a file's record,
// and when a file is complete, is package folder's, as of files on volumes.
package sftp
