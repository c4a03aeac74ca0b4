// Package files joins files on a volume: the source takes in the files that others put into a folder of it (connectors/systems/internal/folder), the
// sink writes messages to files, one for each or one after the other.
//
// Everything happens below the volume's root: no path, whatever a message holds and whatever links there are, leads out of it (os.Root).
package files
