"""GPU and inference server metrics: four ways in, one way of reading.

Prometheus text (own scrapes), Prometheus remote-write and OTLP all become points: a metric name, labels, a value and a
time. `tables` says what each name means, `series` who it is about, `samples` puts the points of one device and slot
together and leaves out what cannot be believed.
"""
