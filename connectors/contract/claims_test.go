package contract

import (
	"slices"
	"strings"
	"testing"
)

func TestClaimsAreReadAsTheyWereWritten(t *testing.T) {
	id, digest := strings.Repeat("0a", 16), strings.Repeat("f0", 32)
	c := Claim{ID: id, Size: 9 << 20, Chunk: ClaimChunk, Digest: digest}
	got, err := ParseClaim(c.String())
	if err != nil || got != c || got.Chunks() != 18 {
		t.Fatalf("%+v, %v", got, err)
	}
	if n := (Claim{Size: ClaimChunk + 1, Chunk: ClaimChunk}).Chunks(); n != 2 {
		t.Errorf("%d chunks", n)
	}
	for _, bad := range []string{
		"", id, id + " 1 1024", id + " 0 1024 sha256:" + digest, id + " 268435457 1024 sha256:" + digest, id + " 1 0 sha256:" + digest,
		id + " 1 9000000 sha256:" + digest, id + " 1 1024 " + digest, id + " 1 1024 sha256:" + digest[2:], id[2:] + " 1 1024 sha256:" + digest,
		"../" + id[3:] + " 1 1024 sha256:" + digest, strings.Replace(id, "a", ".", 1) + " 1 1024 sha256:" + digest,
		strings.ToUpper(id) + " 1 1024 sha256:" + digest, id + "  1 1024 sha256:" + digest, id + " -1 1024 sha256:" + digest,
	} {
		if got, err := ParseClaim(bad); err == nil {
			t.Errorf("%q is %+v", bad, got)
		}
	}
	connector, got1, void, ok := ParseClaimSubject(ClaimChunkSubject("ns", "in", "src", id, 3))
	if connector != "src" || got1 != id || void || !ok {
		t.Error(connector, got1, void, ok)
	}
	if _, _, void, ok = ParseClaimSubject(ClaimVoidSubject("ns", "in", "src", id)); !void || !ok {
		t.Error("void is not read")
	}
	if _, _, _, ok = ParseClaimSubject("blob.ns.in.src"); ok {
		t.Error("a subject without an id is taken")
	}
}

func TestClaimPermissions(t *testing.T) {
	own := "blob.ns.in.src.>"
	if slices.Contains(SourcePermissions("ns", "in", "src").Publish, own) {
		t.Error("every source may write chunks")
	}
	if p := SourcePermissions("ns", "in", "src").WithClaims("ns", "in", "src"); !slices.Contains(p.Publish, own) {
		t.Errorf("%v", p.Publish)
	}
	p := SinkPermissions("ns", "snk", []SinkDestination{{Integration: "in", Route: "r", Destination: "d", Sources: []string{"src"}}})
	if !slices.Contains(p.Publish, "bus.API.DIRECT.GET.ns_in_blob.blob.ns.in.src.>") {
		t.Errorf("%v", p.Publish)
	}
	if slices.ContainsFunc(p.Publish, func(s string) bool { return strings.HasPrefix(s, "blob.") }) {
		t.Error("a sink may write chunks")
	}
}

func FuzzParseClaim(f *testing.F) {
	f.Add(Claim{ID: strings.Repeat("0a", 16), Size: 1, Chunk: ClaimChunk, Digest: strings.Repeat("f0", 32)}.String())
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseClaim(s)
		if err != nil {
			return
		}
		if again, err := ParseClaim(c.String()); err != nil || again != c || c.Chunks() < 1 {
			t.Errorf("%q: %+v, %v", s, again, err)
		}
	})
}
