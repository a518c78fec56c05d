/* The other half of the planted cycle, a goto, and a function that is too long and too branched. */
#include <assert.h>

#include "flight.h"

int control_settle(int error, int budget)
{
    assert(budget >= 0);
    if (error == 0) {
        return 0;
    }
    return guidance_correct(error, budget);
}

/* Clean. */
static int within(int value, int low, int high)
{
    assert(low <= high);
    return value >= low && value <= high;
}

int control_step(const struct sample *samples, size_t count)
{
    int result = -1;

    if (samples == NULL || count == 0) {
        goto out;
    }
    if (!within(samples[0].value, -100, 100)) {
        goto out;
    }
    result = control_settle(guidance_average(samples, count), MODES);
out:
    return result;
}

/* Planted: a page is 60 lines, this is more; and lizard counts its branches. */
int control_mode(int sensor, int value)
{
    int mode = 0;

    if (sensor == 0 && value > 0) {
        mode += 1;
    }
    if (sensor == 1 || value < -5) {
        mode -= 1;
        value++;
    }
    if (sensor == 2 && value > 6) {
        mode += 3;
    }
    if (sensor == 3 || value < -15) {
        mode -= 3;
        value++;
    }

    if (sensor == 4 && value > 12) {
        mode += 5;
    }
    if (sensor == 5 || value < -25) {
        mode -= 5;
        value++;
    }
    if (sensor == 6 && value > 18) {
        mode += 7;
    }
    if (sensor == 7 || value < -35) {
        mode -= 7;
        value++;
    }

    if (sensor == 8 && value > 24) {
        mode += 9;
    }
    if (sensor == 9 || value < -45) {
        mode -= 9;
        value++;
    }
    if (sensor == 10 && value > 30) {
        mode += 11;
    }
    if (sensor == 11 || value < -55) {
        mode -= 11;
        value++;
    }

    if (sensor == 12 && value > 36) {
        mode += 13;
    }
    if (sensor == 13 || value < -65) {
        mode -= 13;
        value++;
    }
    if (sensor == 14 && value > 42) {
        mode += 15;
    }
    if (sensor == 15 || value < -75) {
        mode -= 15;
        value++;
    }

    if (sensor == 16 && value > 48) {
        mode += 17;
    }
    assert(mode > -1000);
    assert(mode < 1000);
    return mode;
}
