/* What the modules of the example share. */
#ifndef FLIGHT_H
#define FLIGHT_H

#include <stddef.h>

#define SENSORS 4
#define MODES 3

struct sample {
    int sensor;
    int value;
};

/* control.c */
int control_step(const struct sample *samples, size_t count);
int control_settle(int error, int budget);

/* guidance.c */
int guidance_correct(int error, int budget);
int guidance_average(const struct sample *samples, size_t count);

/* telemetry.c */
int telemetry_init(size_t capacity);
int telemetry_push(const struct sample *item);
char *telemetry_label(const char *name);

#endif
