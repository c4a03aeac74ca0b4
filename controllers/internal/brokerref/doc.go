// Package brokerref says which Broker serves an Integration, and whether it may. It is pure; callers read the objects.
package brokerref
