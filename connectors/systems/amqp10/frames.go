package amqp10

import (
	"encoding/binary"
	"fmt"
	"net"
)

// maxFrame is what we say that we take in one frame, in bytes.
const maxFrame = 64 << 10

// frames refuses frames that are larger than was agreed on: the client library would take in what a frame's head announces, up to 2 GiB.
type frames struct {
	net.Conn
	head [4]byte
	have int // of head
	left int // of the frame
}

// Read implements net.Conn.
func (f *frames) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	for rest := b[:n]; len(rest) > 0; {
		if f.left > 0 {
			k := min(f.left, len(rest))
			f.left -= k
			rest = rest[k:]
			continue
		}
		k := copy(f.head[f.have:], rest)
		rest = rest[k:]
		if f.have += k; f.have < len(f.head) {
			break
		}
		f.have = 0
		size := binary.BigEndian.Uint32(f.head[:])
		switch {
		case string(f.head[:]) == "AMQP":
			size = 8 // the protocol's header
		case size < 8 || size > maxFrame:
			return 0, fmt.Errorf("the server does not speak AMQP 1.0: it sends a frame of %d bytes, and %d were agreed on", size, maxFrame)
		}
		f.left = int(size) - len(f.head)
	}
	return n, err
}
