package steps

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // the images hold no time zones

	"github.com/robfig/cron/v3"
)

// ParseSchedule reads a cron expression of five fields, or @hourly, @daily, @weekly, @monthly, @yearly or @every <duration>, in a time
// zone by its IANA name (the empty one means UTC). Two parties that ask the same schedule for the next tick after the same time get the same
// answer: @every counts from the Unix epoch, not from now. A schedule that never comes (30 February) is an error.
func ParseSchedule(expression, timeZone string) (cron.Schedule, error) {
	location := time.UTC
	if timeZone != "" {
		var err error
		if location, err = time.LoadLocation(timeZone); err != nil || timeZone == "Local" {
			return nil, fmt.Errorf("time zone %q is unknown: write an IANA name such as Europe/London", timeZone)
		}
	}
	expression = strings.TrimSpace(expression)
	if text, ok := strings.CutPrefix(expression, "@every "); ok {
		return parseEvery(strings.TrimSpace(text))
	}
	if strings.Contains(expression, "TZ=") {
		return nil, errors.New("cron: write the time zone into timeZone")
	}
	schedule, err := cron.ParseStandard(expression)
	if err != nil {
		return nil, fmt.Errorf("cron %q: %w", expression, err)
	}
	if spec, ok := schedule.(*cron.SpecSchedule); ok {
		spec.Location = location
	}
	if schedule.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("cron %q: that day never comes", expression)
	}
	return schedule, nil
}

func parseEvery(text string) (cron.Schedule, error) {
	period, err := time.ParseDuration(text)
	if err != nil {
		return nil, fmt.Errorf("cron: @every %s: write a duration such as 90s", text)
	}
	if period < time.Second || period%time.Second != 0 {
		return nil, fmt.Errorf("cron: @every %s: write whole seconds, at least one", text)
	}
	return every(period), nil
}

// every ticks whenever the time since the Unix epoch is a multiple of it.
type every time.Duration

// Next tick after t.
func (e every) Next(t time.Time) time.Time {
	period := int64(time.Duration(e) / time.Second)
	return time.Unix((t.Unix()/period+1)*period, 0).UTC()
}
