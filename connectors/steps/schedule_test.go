package steps

import (
	"strings"
	"testing"
	"time"
)

func TestParseSchedule(t *testing.T) {
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	tests := []struct {
		expression, zone, after string
		want                    []string
	}{
		{"*/15 * * * *", "", "2026-01-02T03:04:05Z", []string{"2026-01-02T03:15:00Z", "2026-01-02T03:30:00Z"}},
		{"0 6 * * MON-FRI", "Europe/London", "2026-07-03T12:00:00Z", []string{"2026-07-06T05:00:00Z"}},
		{"@hourly", "Asia/Kolkata", "2026-01-02T03:04:05Z", []string{"2026-01-02T03:30:00Z"}},
		{"@every 90s", "", "2026-01-02T03:04:05Z", []string{"2026-01-02T03:04:30Z", "2026-01-02T03:06:00Z"}},
		{"@every 24h", "", "2026-01-02T03:04:05.5Z", []string{"2026-01-03T00:00:00Z"}},
		// The clock goes forward at 01:00: there is no 01:30 on 29 March.
		{"30 1 * * *", "Europe/London", "2026-03-28T12:00:00Z", []string{"2026-03-30T00:30:00Z"}},
		// It goes back at 02:00: there are two.
		{"30 1 * * *", "Europe/London", "2026-10-24T12:00:00Z", []string{"2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"}},
	}
	for _, test := range tests {
		s, err := ParseSchedule(test.expression, test.zone)
		if err != nil {
			t.Errorf("%s: %v", test.expression, err)
			continue
		}
		next := at(test.after)
		for _, want := range test.want {
			if next = s.Next(next); !next.Equal(at(want)) {
				t.Errorf("%s in %q: %s, want %s", test.expression, test.zone, next.UTC(), want)
			}
		}
	}
	for _, test := range []struct{ expression, zone, message string }{
		{"", "", "cron"},
		{"* * * *", "", "expected exactly 5 fields"},
		{"* * * * * *", "", "expected exactly 5 fields"},
		{"61 * * * *", "", "above maximum"},
		{"0 0 30 2 *", "", "never comes"},
		{"TZ=Europe/London * * * * *", "", "timeZone"},
		{"CRON_TZ=x", "", "timeZone"},
		{"@every 10ms", "", "whole seconds"},
		{"@every 1500ms", "", "whole seconds"},
		{"@every -5s", "", "whole seconds"},
		{"@every soon", "", "duration"},
		{"@reboot", "", "cron"},
		{"* * * * *", "Mars/Olympus", "unknown"},
		{"* * * * *", "Local", "unknown"},
	} {
		if _, err := ParseSchedule(test.expression, test.zone); err == nil || !strings.Contains(err.Error(), test.message) {
			t.Errorf("%q in %q: %v, want %q", test.expression, test.zone, err, test.message)
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	f.Add("*/5 0-23 1,15 JAN-MAR mon", "Europe/London")
	f.Add("@every 1h30m", "")
	f.Fuzz(func(t *testing.T, expression, zone string) {
		if len(expression) > 128 || len(zone) > 64 {
			return // the API's bounds
		}
		s, err := ParseSchedule(expression, zone)
		if err != nil {
			return
		}
		from := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
		for range 3 {
			next := s.Next(from)
			if next.IsZero() {
				return
			}
			if !next.After(from) {
				t.Fatalf("%q in %q: %s does not come after %s", expression, zone, next, from)
			}
			from = next
		}
	})
}
