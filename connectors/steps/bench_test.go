package steps

import (
	"encoding/json"
	"syscall"
	"testing"
	"time"

	"github.com/itchyny/gojq"

	"github.com/metip/metip/connectors/sdk"
)

// record is one of the demo's arrests: 1 KiB, and as crooked as they come.
const record = `{"arrestId":"NM26-040237","custodyNumber":"NM09/02237/26","force":"Northmere Constabulary","station":{"code":"NM09","name":"Port Ellery"},"detainee":{"personId":"P8491875","surname":"D'Costa","forename":"Ondřej","dateOfBirth":"2007-09-18","sex":"M","selfDefinedEthnicity":"B1","nationality":"CZE","language":"cs","interpreterNeeded":true,"address":{"lines":["No fixed abode"],"town":"Saltergate"}},"arrest":{"at":"2026-03-03T04:49:34Z","place":"169 Canal Street, Port Ellery","necessity":["to prevent physical injury"]},"detention":{"authorisedAt":"2026-03-03T05:42:34Z","reviewedAt":"2026-03-03T11:42:34Z","releasedAt":"2026-03-04T02:44:34Z"},"offences":[{"code":"RT88191","title":"Driving with excess alcohol","act":"Road Traffic Act 1988 s.5(1)(a)","at":"2026-03-02T03:09:34Z"}],"officers":[{"role":"arresting","collar":"PC 3960","name":"Haddad, S."},{"role":"custody","collar":"PS 336","name":"Pryce-Jones, E."}],"disposal":"court","court":{"code":"NMM03","name":"Wexmoor Magistrates' Court","hearingAt":"2026-03-09T10:45:00Z"}}`

// reshape is the demo Route's own program.
const reshape = `{
  caseId: ("C-" + .arrestId),
  arrestId,
  custodyNumber,
  defendant: {
    surname: .detainee.surname,
    forenames: ([.detainee.forename] + (.detainee.middleNames // []) | join(" ")),
    dateOfBirth: .detainee.dateOfBirth,
    address: (.detainee.address | .lines + [.town, .postcode] | map(select(. != null)) | join(", ")),
    interpreter: (if .detainee.interpreterNeeded then .detainee.language else null end)
  },
  charges: [.offences[] | {code, title, committedAt: .at}],
  court: {code: .court.code, hearingAt: .court.hearingAt},
  officerInCase: ((first(.officers[] | select(.role == "investigating")) // .officers[0]) | .collar + " " + .name)
}`

// pick is a program of the commonest kind: it picks and renames.
const pick = `{caseId: .arrestId, surname: .detainee.surname, born: .detainee.dateOfBirth, court: .court.code, at: .court.hearingAt,
  charges: [.offences[] | {code, title, at}]}`

// perCore reports operations a second of a core, by the processor's time that the process took from the call of perCore to that of its result:
// others may use the machine at the same time.
func perCore(b *testing.B) func() {
	b.Helper()
	b.ReportAllocs()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begun := used()
	return func() { b.ReportMetric(float64(b.N)/(used()-begun).Seconds(), "ops/core-s") }
}

// BenchmarkFilter1KiB is a filter over a body that nothing has decoded yet, as it comes from the broker.
func BenchmarkFilter1KiB(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"one", `data.disposal == "court"`},
		{"and", `data.disposal == "court" && data.court.code.startsWith("NMM") && data.detainee.sex in ["M", "F"]`},
		{"has", `has(data.court) && !has(data.detainee.middleNames) && data.detainee.interpreterNeeded`},
		{"loop", `data.offences.exists(o, o.code == "RT88191")`},
		{"whole", `size(data) > 3`},
	} {
		b.Run(c.name, func(b *testing.B) {
			f, err := CompileFilter(c.text)
			if err != nil {
				b.Fatal(err)
			}
			body := []byte(record)
			done := perCore(b)
			for b.Loop() {
				m := sdk.Message{Data: body}
				if ok, err := f.Match(&m); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
			done()
		})
	}
}

// BenchmarkTransform1KiB is beside what gojq and encoding/json do alone, without bounds.
func BenchmarkTransform1KiB(b *testing.B) {
	for _, c := range []struct{ name, text string }{{"fields", pick}, {"reshape", reshape}} {
		b.Run(c.name, func(b *testing.B) {
			t := must(b, c.text)
			body := []byte(record)
			done := perCore(b)
			for b.Loop() {
				m := sdk.Message{Data: body}
				if _, ok, err := t.Apply(b.Context(), &m); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
			done()
		})
		b.Run(c.name+"-bare", func(b *testing.B) {
			query, err := gojq.Parse(c.text)
			if err != nil {
				b.Fatal(err)
			}
			code, err := gojq.Compile(query)
			if err != nil {
				b.Fatal(err)
			}
			body := []byte(record)
			done := perCore(b)
			for b.Loop() {
				var in any
				if err := json.Unmarshal(body, &in); err != nil {
					b.Fatal(err)
				}
				out, ok := code.Run(in).Next()
				if _, failed := out.(error); !ok || failed {
					b.Fatal(ok, out)
				}
				if _, err := json.Marshal(out); err != nil {
					b.Fatal(err)
				}
			}
			done()
		})
	}
}
