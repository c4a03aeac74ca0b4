// Package schedule is the system "schedule": a source that makes a message by the clock. The message's id is the tick's time, so that
// several replicas, and a pod that makes up for lost time, make one message of a tick. What it promises is in
// docs/connectors/schedule.md. How cron expressions are read is in package steps, which the operator uses too.
package schedule
