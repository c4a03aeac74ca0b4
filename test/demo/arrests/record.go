package arrests

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Disposals of an arrest.
const (
	DisposalCourt     = "court"
	DisposalBail      = "police-bail"
	DisposalCaution   = "caution"
	DisposalNoAction  = "no-further-action"
	DisposalRUI       = "released-under-investigation"
	DisposalCommunity = "community-resolution"
)

// Record is an arrest as the custody system posts it.
type Record struct {
	ArrestID      string    `json:"arrestId"`
	CustodyNumber string    `json:"custodyNumber"`
	Force         string    `json:"force"`
	Station       Station   `json:"station"`
	Detainee      Person    `json:"detainee"`
	Arrest        Arrest    `json:"arrest"`
	Detention     Detention `json:"detention"`
	Offences      []Offence `json:"offences"`
	Officers      []Officer `json:"officers"`
	Disposal      string    `json:"disposal"`
	Court         *Court    `json:"court,omitempty"`
	Notes         string    `json:"notes,omitempty"`
}

// Station that holds the person.
type Station struct {
	Code string `json:"code"`
	Name string `json:"name"`
}

// Person who was arrested.
type Person struct {
	PersonID    string   `json:"personId"`
	Surname     string   `json:"surname"`
	Forename    string   `json:"forename"`
	MiddleNames []string `json:"middleNames,omitempty"`
	// DateOfBirth is null when the person refuses it.
	DateOfBirth *string `json:"dateOfBirth"`
	Sex         string  `json:"sex"`
	Ethnicity   string  `json:"selfDefinedEthnicity"`
	Nationality string  `json:"nationality"`
	Language    string  `json:"language"`
	Interpreter bool    `json:"interpreterNeeded"`
	Address     Address `json:"address"`
}

// Address of a person.
type Address struct {
	Lines    []string `json:"lines"`
	Town     string   `json:"town"`
	Postcode string   `json:"postcode,omitempty"`
}

// Arrest is the act itself.
type Arrest struct {
	At        time.Time `json:"at"`
	Place     string    `json:"place"`
	Necessity []string  `json:"necessity"`
}

// Detention in the custody suite.
type Detention struct {
	AuthorisedAt time.Time  `json:"authorisedAt"`
	ReviewedAt   *time.Time `json:"reviewedAt,omitempty"`
	ReleasedAt   time.Time  `json:"releasedAt"`
}

// Offence that the person is suspected of, or charged with.
type Offence struct {
	Code  string    `json:"code"`
	Title string    `json:"title"`
	Act   string    `json:"act"`
	At    time.Time `json:"at"`
	Value *float64  `json:"value,omitempty"`
}

// Officer with a part in the arrest.
type Officer struct {
	Role   string `json:"role"`
	Collar string `json:"collar"`
	Name   string `json:"name"`
}

// Court that the person is sent to.
type Court struct {
	// Code is null while listing has not allotted a court.
	Code      *string   `json:"code"`
	Name      string    `json:"name"`
	HearingAt time.Time `json:"hearingAt"`
}

// Fate is what must become of a record.
type Fate struct {
	// Filtered: no destination gets it.
	Filtered bool
	// DatabaseRefuses: the court's database can never accept it (it demands a date of birth).
	DatabaseRefuses bool
	// CaseAPIRefuses: the case API can never accept it (it demands a court).
	CaseAPIRefuses bool
}

// Fate of the record on the demo's Route.
func (r *Record) Fate() Fate {
	if r.Disposal != DisposalCourt {
		return Fate{Filtered: true}
	}
	return Fate{
		DatabaseRefuses: r.Detainee.DateOfBirth == nil,
		CaseAPIRefuses:  r.Court == nil || r.Court.Code == nil,
	}
}

// CaseID is what the court calls the case of the arrest: the Route's transform makes the same.
func (r *Record) CaseID() string { return "C-" + r.ArrestID }

// Line is a record with the bytes that are sent.
type Line struct {
	Record
	Body []byte
}

// Read records, one JSON object a line.
func Read(in io.Reader) ([]Line, error) {
	var lines []Line
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		body := bytes.Clone(bytes.TrimSpace(scanner.Bytes()))
		if len(body) == 0 {
			continue
		}
		line := Line{Body: body}
		if err := json.Unmarshal(body, &line.Record); err != nil {
			return nil, fmt.Errorf("record %d: %w", len(lines)+1, err)
		}
		lines = append(lines, line)
	}
	return lines, scanner.Err()
}

// Write records, one JSON object a line.
func Write(out io.Writer, records []Record) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for i := range records {
		if err := enc.Encode(&records[i]); err != nil {
			return fmt.Errorf("record %d: %w", i+1, err)
		}
	}
	return nil
}
