package contract

import "time"

const (
	// HeaderHistory is the Message History of a message whose source asks for it: where it has been, and when. See AppendHistory.
	HeaderHistory = "metip-history"
	// maxHistory in bytes; what would come after that is left out.
	maxHistory = 8 << 10
)

// AppendHistory adds a place to a history: `custody;2026-11-23T10:00:00Z, arrests-to-court/database;2026-11-23T10:00:01Z`. A place is the
// name of a source, or of a Route and its destination; the time is when the message came there.
func AppendHistory(history, place string, at time.Time) string {
	entry := place + ";" + at.UTC().Format(time.RFC3339Nano)
	switch {
	case history == "":
		return entry
	case len(history)+2+len(entry) > maxHistory:
		return history
	}
	return history + ", " + entry
}
