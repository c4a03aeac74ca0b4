package engine

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// cacheEntryCost is what an answer takes beside its body and headers, in bytes.
const cacheEntryCost = 512

// callCache keeps answers of one pod. The one that was not asked for longest goes first.
type callCache struct {
	ttl time.Duration
	max int64
	// maxEntries that are kept; 0 for no bound but max.
	maxEntries int
	methods    []string

	mu      sync.Mutex
	size    int64
	entries map[cacheKey]*list.Element
	recent  list.List // of *cached, the last used first
}

// cacheKey of a request: a digest of what its answer may depend on.
type cacheKey [sha256.Size]byte

type cached struct {
	key          cacheKey
	answer       *sdk.Answer
	size         int64
	made, expire time.Time
}

func newCallCache(c contract.Cache) *callCache {
	methods := c.Methods
	if len(methods) == 0 {
		methods = []string{http.MethodGet, http.MethodHead}
	}
	return &callCache{ttl: time.Duration(c.TTL), max: c.MaxBytes, methods: methods, entries: map[cacheKey]*list.Element{}}
}

// keyedHeaders are those that answers may depend on; a service does not let one be kept that depends on others.
var keyedHeaders = []string{"accept", "accept-language", "range", "if-none-match", "if-modified-since"}

func keyOf(r *sdk.Request) cacheKey {
	h := sha256.New()
	var n [8]byte
	part := func(b []byte) { // its length first, so that no two requests run together
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		_, _ = h.Write(n[:])
		_, _ = h.Write(b)
	}
	for _, s := range []string{r.Method, r.Path, r.Query, r.ContentType} {
		part([]byte(s))
	}
	for _, name := range keyedHeaders {
		part([]byte(strings.Join(r.Header[name], ",")))
	}
	part(r.Data)
	return cacheKey(h.Sum(nil))
}

// takes says whether the answer to a request may come from here, or go here.
func (c *callCache) takes(r *sdk.Request) bool {
	if !slices.Contains(c.methods, r.Method) {
		return false
	}
	for _, name := range []string{"cache-control", "pragma"} {
		for _, value := range r.Header[name] {
			if strings.Contains(value, "no-cache") || strings.Contains(value, "no-store") {
				return false
			}
		}
	}
	return true
}

// get an answer that is fresh; nil if there is none.
func (c *callCache) get(key cacheKey, now time.Time) *sdk.Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil
	}
	kept := e.Value.(*cached)
	if !now.Before(kept.expire) {
		c.remove(e)
		return nil
	}
	c.recent.MoveToFront(e)
	answer := *kept.answer
	answer.Header = maps.Clone(answer.Header)
	if answer.Header == nil {
		answer.Header = map[string][]string{}
	}
	answer.Header["age"] = []string{strconv.Itoa(max(0, int(now.Sub(kept.made).Seconds())))}
	return &answer
}

// put an answer of the system, if it may be kept and fits.
func (c *callCache) put(key cacheKey, a *sdk.Answer, now time.Time) {
	if a.Status/100 != 2 || a.Status == http.StatusPartialContent || a.CacheFor < 0 {
		return
	}
	ttl := c.ttl
	if a.CacheFor > 0 {
		ttl = min(ttl, a.CacheFor)
	}
	size := int64(cacheEntryCost + len(a.Data) + len(a.ContentType))
	for name, values := range a.Header {
		size += int64(len(name) + 64)
		for _, v := range values {
			size += int64(len(v) + 16)
		}
	}
	if size > c.max {
		return
	}
	kept := *a
	kept.Free = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		c.remove(e)
	}
	c.size += size
	c.entries[key] = c.recent.PushFront(&cached{key: key, answer: &kept, size: size, made: now, expire: now.Add(ttl)})
	for c.size > c.max || c.maxEntries > 0 && len(c.entries) > c.maxEntries {
		c.remove(c.recent.Back())
	}
}

func (c *callCache) remove(e *list.Element) {
	kept := c.recent.Remove(e).(*cached)
	delete(c.entries, kept.key)
	c.size -= kept.size
}
