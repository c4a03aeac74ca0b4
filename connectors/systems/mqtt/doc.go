// Package mqtt joins message brokers that speak MQTT 5 or 3.1.1, such as Mosquitto: topics that devices write to and read from.
//
// The protocol is spoken here rather than by a library. eclipse/paho.golang, the one that is kept, speaks MQTT 5 only, and its predecessor
// paho.mqtt.golang speaks 3.1.1 only: two clients with two ideas of sessions, reconnecting and acknowledging, for two versions that differ in a few fields.
// Both also take in packets of any size (256 MiB), and keep what is not acknowledged themselves, which here the broker's session does. The tests
// read and write with paho.golang, so that the codec is held against another one.
package mqtt
