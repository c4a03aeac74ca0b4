package contract

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A body that is larger than the bus carries is checked in: the source stores it in chunks, in a stream of the Integration beside that of the
// events, and publishes a message without a body whose header is the claim check. Chunks are written once, by the Connector whose messages
// name them, and removed by the operator when no message names them any more.

const (
	// HeaderClaim is the claim check: Claim.String. It names a claim of the Connector in the message's original subject, never another's.
	HeaderClaim = "metip-claim"
	// MaxClaimSize of a body that is checked in, in bytes.
	MaxClaimSize = 256 << 20
	// ClaimChunk is the size of a chunk, in bytes; the last may be smaller.
	ClaimChunk = 512 << 10
	// ClaimTimeout is how long a source may take from a claim's first chunk until the message is published that names it. What has not been
	// named for much longer never will be.
	ClaimTimeout = 5 * time.Minute

	// DeadReasonTooLarge is of a message with a claim check whose body a step, or the system, would have to hold in memory.
	DeadReasonTooLarge = "TooLarge"
	// DeadReasonClaimLost is of a message whose claim check names what is not there, or is not what was accepted.
	DeadReasonClaimLost = "ClaimLost"

	// claimIDLength in hexadecimal digits, of 16 random bytes.
	claimIDLength = 32
	claimVoid     = "void"
)

// Claim is a body that was checked in.
type Claim struct {
	// ID is random, 32 hexadecimal digits: two uploads never share a chunk.
	ID string
	// Size of the body and of its chunks, in bytes.
	Size, Chunk int64
	// Digest is the SHA-256 of the body, in hexadecimal.
	Digest string
}

// String is the value of HeaderClaim: id, size, size of a chunk and digest.
func (c Claim) String() string {
	return c.ID + " " + strconv.FormatInt(c.Size, 10) + " " + strconv.FormatInt(c.Chunk, 10) + " sha256:" + c.Digest
}

// Chunks is their number.
func (c Claim) Chunks() int { return int((c.Size + c.Chunk - 1) / c.Chunk) }

// ParseClaim is the inverse of Claim.String.
func ParseClaim(s string) (Claim, error) {
	parts := strings.Split(s, " ")
	if len(parts) != 4 {
		return Claim{}, fmt.Errorf("the claim check %.120q is not id, size, chunk and digest", s)
	}
	c := Claim{ID: parts[0]}
	var err error
	if c.Size, err = strconv.ParseInt(parts[1], 10, 64); err != nil || c.Size < 1 || c.Size > MaxClaimSize {
		return Claim{}, fmt.Errorf("the size %.20q of the claim check is not from 1 to %d", parts[1], MaxClaimSize)
	}
	if c.Chunk, err = strconv.ParseInt(parts[2], 10, 64); err != nil || c.Chunk < 1<<10 || c.Chunk > MaxMessageSize {
		return Claim{}, fmt.Errorf("the chunk size %.20q of the claim check is not from 1024 to %d", parts[2], MaxMessageSize)
	}
	digest, ok := strings.CutPrefix(parts[3], "sha256:")
	if !ok || !isHex(digest, 64) || !isHex(c.ID, claimIDLength) {
		return Claim{}, fmt.Errorf("the claim check %.120q has no id of %d and digest of 64 hexadecimal digits", s, claimIDLength)
	}
	c.Digest = digest
	return c, nil
}

func isHex(s string, n int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == n && s == strings.ToLower(s)
}

// ClaimStream of an Integration.
func ClaimStream(namespace, integration string) string {
	return namespace + "_" + integration + "_blob"
}

// ClaimSubjects are what ClaimStream stores.
func ClaimSubjects(namespace, integration string) string {
	return "blob." + namespace + "." + integration + ".>"
}

// ConnectorClaimSubjects are the chunks of one Connector: it may publish them, and those that its Routes deliver to may read them.
func ConnectorClaimSubjects(namespace, integration, connector string) string {
	return "blob." + namespace + "." + integration + "." + connector + ".>"
}

// ClaimChunks are all subjects of one claim.
func ClaimChunks(namespace, integration, connector, id string) string {
	return claimPrefix(namespace, integration, connector, id) + "*"
}

// ClaimChunkSubject is the subject of one chunk, counted from 0.
func ClaimChunkSubject(namespace, integration, connector, id string, chunk int) string {
	return claimPrefix(namespace, integration, connector, id) + strconv.Itoa(chunk)
}

// ClaimVoidSubject is where a source says that it will publish no message any more that names a claim: its chunks need not be kept in case.
func ClaimVoidSubject(namespace, integration, connector, id string) string {
	return claimPrefix(namespace, integration, connector, id) + claimVoid
}

func claimPrefix(namespace, integration, connector, id string) string {
	return "blob." + namespace + "." + integration + "." + connector + "." + id + "."
}

// ParseClaimSubject of a chunk, or of the word that a claim is void.
func ParseClaimSubject(subject string) (connector, id string, void, ok bool) {
	p := strings.Split(subject, ".")
	if len(p) != 6 || p[0] != "blob" {
		return "", "", false, false
	}
	return p[3], p[4], p[5] == claimVoid, true
}

// WithClaims are the permissions of a source that checks bodies in: to write its own chunks besides.
func (p Permissions) WithClaims(namespace, integration, connector string) Permissions {
	p.Publish = append(p.Publish, ConnectorClaimSubjects(namespace, integration, connector))
	return p
}

// claimReads of a destination: the chunks of the Connectors that it reads from.
func (d SinkDestination) claimReads(namespace string) []string {
	var out []string
	for _, connector := range d.Sources {
		out = append(out, APIPrefix+".DIRECT.GET."+ClaimStream(namespace, d.Integration)+"."+ConnectorClaimSubjects(namespace, d.Integration, connector))
	}
	return out
}
