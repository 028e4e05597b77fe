#!/bin/sh
# Print what a board says of itself and of what may slow it down: lines of key=value, the value empty where it does not tell.

quietly() { "$@" 2>/dev/null; }

name=$(quietly cat /proc/device-tree/model | tr -d '\000')
[ -n "$name" ] || name=$(quietly sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "name=$name"
echo "machine=$(uname -m)"
echo "cores=$(quietly nproc || quietly grep -c ^processor /proc/cpuinfo)"
echo "governor=$(quietly cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor | sort -u | xargs)"
# Thousandths of a degree Celsius, of the hottest sensor.
echo "temperature=$(quietly cat /sys/class/thermal/thermal_zone*/temp | sort -n | tail -n 1)"
# Only a Raspberry Pi has this command, which prints throttled=0x0.
throttled=$(quietly vcgencmd get_throttled)
echo "throttled=${throttled#throttled=}"
