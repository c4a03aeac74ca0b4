package arrests

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Generate makes the same n records every time. Of a thousand, about six hundred are bound for court; three of those have no date of
// birth, which the court's database refuses, and two no court yet, which the case API refuses.
func Generate(n int) []Record {
	g := generator{rand.New(rand.NewPCG(1829, 1984))} // the Metropolitan Police Act, and PACE
	begin := time.Date(2026, time.March, 2, 6, 0, 0, 0, time.UTC)
	records := make([]Record, 0, n)
	for i := range n {
		begin = begin.Add(time.Duration(40+g.IntN(600)) * time.Second)
		records = append(records, g.record(i+1, begin))
	}
	g.poison(records)
	return records
}

type generator struct{ *rand.Rand }

func pick[T any](g generator, from []T) T { return from[g.IntN(len(from))] }

func (g generator) chance(p float64) bool { return g.Float64() < p }

func (g generator) record(number int, at time.Time) Record {
	station := pick(g, stations)
	authorised := at.Add(time.Duration(25+g.IntN(70)) * time.Minute)
	released := authorised.Add(time.Duration(180+g.IntN(1100)) * time.Minute)
	r := Record{
		ArrestID:      fmt.Sprintf("NM26-%06d", 40_000+number),
		CustodyNumber: fmt.Sprintf("%s/%05d/26", station.Code, 2_000+number),
		Force:         "Northmere Constabulary",
		Station:       station,
		Detainee:      g.person(),
		Arrest:        Arrest{At: at, Place: fmt.Sprintf("%d %s, %s", 1+g.IntN(180), pick(g, streets), station.Name), Necessity: g.necessity()},
		Detention:     Detention{AuthorisedAt: authorised, ReleasedAt: released},
		Officers:      g.officers(),
	}
	if released.Sub(authorised) > 6*time.Hour {
		review := authorised.Add(6 * time.Hour)
		r.Detention.ReviewedAt = &review
	}
	kind := g.offenceKind()
	r.Offences = g.offences(kind, at)
	r.Disposal = g.disposal(kind)
	if r.Disposal == DisposalCourt {
		court := pick(g, courts)
		if *r.Detainee.DateOfBirth > "2008-03-02" {
			court = youthCourt
		}
		code := court.code
		hearing := time.Date(released.Year(), released.Month(), released.Day()+1+g.IntN(27), 10, 15*g.IntN(4), 0, 0, time.UTC)
		r.Court = &Court{Code: &code, Name: court.name, HearingAt: hearing}
	}
	if g.chance(0.25) {
		r.Notes = pick(g, notes)
	}
	return r
}

func (g generator) person() Person {
	sex, forenames := "M", maleNames
	if g.chance(0.19) {
		sex, forenames = "F", femaleNames
	}
	name := pick(g, forenames)
	p := Person{
		PersonID:    fmt.Sprintf("P%07d", 1_000_000+g.IntN(8_999_999)),
		Surname:     pick(g, surnames),
		Forename:    name.name,
		Sex:         sex,
		Ethnicity:   pick(g, ethnicities),
		Nationality: name.nationality,
		Language:    name.language,
		Interpreter: name.language != "en" && g.chance(0.4),
		Address:     g.address(),
	}
	if g.chance(0.12) {
		p.Surname += "-" + pick(g, surnames)
	}
	for g.chance(0.42) && len(p.MiddleNames) < 3 {
		p.MiddleNames = append(p.MiddleNames, pick(g, forenames).name)
	}
	// ages from 14 up, most of them between 18 and 40
	years := 14 + int(math.Abs(g.NormFloat64())*14)
	born := time.Date(2026-min(years, 84), time.Month(1+g.IntN(12)), 1+g.IntN(28), 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
	p.DateOfBirth = &born
	return p
}

func (g generator) address() Address {
	if g.chance(0.07) {
		return Address{Lines: []string{"No fixed abode"}, Town: pick(g, towns)}
	}
	lines := []string{fmt.Sprintf("%d %s", 1+g.IntN(220), pick(g, streets))}
	if g.chance(0.3) {
		lines = append([]string{fmt.Sprintf("Flat %d", 1+g.IntN(40))}, lines...)
	}
	// no British postcode area is called QX
	return Address{Lines: lines, Town: pick(g, towns), Postcode: fmt.Sprintf("QX%d %d%c%c", 1+g.IntN(28), g.IntN(10), 'A'+rune(g.IntN(8)), 'P'+rune(g.IntN(10)))}
}

func (g generator) necessity() []string {
	reasons := []string{pick(g, necessities)}
	if other := pick(g, necessities); g.chance(0.5) && other != reasons[0] {
		reasons = append(reasons, other)
	}
	return reasons
}

func (g generator) officers() []Officer {
	officers := []Officer{
		{"arresting", fmt.Sprintf("PC %d", 1000+g.IntN(3500)), pick(g, officerNames)},
		{"custody", fmt.Sprintf("PS %d", 200+g.IntN(160)), pick(g, officerNames)},
	}
	if g.chance(0.6) {
		officers = append(officers, Officer{"investigating", fmt.Sprintf("DC %d", 500+g.IntN(400)), pick(g, officerNames)})
	}
	return officers
}

func (g generator) offenceKind() offenceKind {
	total := 0
	for _, k := range offenceKinds {
		total += k.weight
	}
	at := g.IntN(total)
	for _, k := range offenceKinds {
		if at -= k.weight; at < 0 {
			return k
		}
	}
	return offenceKinds[0]
}

func (g generator) offences(first offenceKind, at time.Time) []Offence {
	offences := []Offence{g.offence(first, at)}
	for len(offences) < 4 && g.chance(0.28) {
		offences = append(offences, g.offence(g.offenceKind(), at))
	}
	return offences
}

func (g generator) offence(kind offenceKind, arrested time.Time) Offence {
	o := Offence{Code: kind.code, Title: kind.title, Act: kind.act, At: arrested.Add(-time.Duration(5+g.IntN(2880)) * time.Minute)}
	if kind.value > 0 {
		value := math.Round(g.Float64()*kind.value*100) / 100
		o.Value = &value
	}
	return o
}

func (g generator) disposal(kind offenceKind) string {
	if g.chance(0.92 * kind.court) {
		return DisposalCourt
	}
	return pick(g, []string{DisposalBail, DisposalBail, DisposalRUI, DisposalRUI, DisposalNoAction, DisposalNoAction, DisposalCaution, DisposalCommunity})
}

// poison makes five records, spread over the whole and bound for court, such that one destination refuses them.
func (g generator) poison(records []Record) {
	const refusedByDatabase, refusedByCaseAPI = 3, 2
	poisoned := 0
	for i := range records {
		r := &records[i]
		if poisoned == refusedByDatabase+refusedByCaseAPI {
			return
		}
		if r.Disposal != DisposalCourt || i < (poisoned+1)*len(records)/(refusedByDatabase+refusedByCaseAPI+1) {
			continue
		}
		if poisoned%2 == 0 {
			r.Detainee.DateOfBirth = nil
			r.Notes = "Detainee refuses to give a date of birth."
		} else {
			r.Court = &Court{Name: "to be listed", HearingAt: r.Court.HearingAt}
			r.Notes = "Remand court not allotted yet."
		}
		poisoned++
	}
}
