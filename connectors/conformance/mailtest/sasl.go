package mailtest

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/emersion/go-smtp"
)

// login is AUTH LOGIN.
type login struct {
	check func(user, password string) error
	step  int
	user  string
}

// Next answer of the client's.
func (l *login) Next(response []byte) (challenge []byte, done bool, err error) {
	l.step++
	switch l.step {
	case 1:
		return []byte("Username:"), false, nil
	case 2:
		l.user = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.user, string(response))
}

// scram is SCRAM-SHA-256 (RFC 7677) without channel binding.
type scram struct {
	password string
	known    *bool

	step                int
	salted              []byte
	clientFirst, server string
	nonce               string
}

const rounds = 4096

func sum(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

var errRefused = &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "Authentication credentials invalid"}

// Next answer of the client's.
func (s *scram) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil {
		return []byte{}, false, nil
	}
	s.step++
	switch s.step {
	case 1:
		return s.first(string(response))
	case 2:
		return s.final(string(response))
	}
	*s.known = true
	return nil, true, nil
}

func (s *scram) first(message string) ([]byte, bool, error) {
	bare, ok := strings.CutPrefix(message, "n,,")
	user, nonce, found := strings.Cut(bare, ",r=")
	if !ok || !found || user != "n="+User {
		return nil, true, errRefused
	}
	salt := []byte("salt of the tests")
	var err error
	if s.salted, err = pbkdf2.Key(sha256.New, s.password, salt, rounds, sha256.Size); err != nil {
		return nil, true, err
	}
	s.clientFirst, s.nonce = bare, nonce+rand.Text()
	s.server = fmt.Sprintf("r=%s,s=%s,i=%d", s.nonce, base64.StdEncoding.EncodeToString(salt), rounds)
	return []byte(s.server), false, nil
}

func (s *scram) final(message string) ([]byte, bool, error) {
	without, proof, found := strings.Cut(message, ",p=")
	given, err := base64.StdEncoding.DecodeString(proof)
	if !found || err != nil || without != "c=biws,r="+s.nonce || len(given) != sha256.Size {
		return nil, true, errRefused
	}
	signed := s.clientFirst + "," + s.server + "," + without
	stored := sha256.Sum256(sum(s.salted, "Client Key"))
	key := make([]byte, sha256.Size)
	subtle.XORBytes(key, given, sum(stored[:], signed))
	if got := sha256.Sum256(key); subtle.ConstantTimeCompare(got[:], stored[:]) != 1 {
		return nil, true, errRefused
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(sum(sum(s.salted, "Server Key"), signed))), false, nil
}
