// Package apply makes, repairs and prunes children by server-side apply. It writes only when something differs: the digest of what was
// applied last, or a field that somebody changed since. It never touches an object that is not ours.
package apply
