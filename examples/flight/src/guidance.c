/* Half of the cycle that is planted: guidance_correct and control_settle call each other. */
#include <assert.h>

#include "flight.h"

int guidance_correct(int error, int budget)
{
    assert(budget >= 0);
    if (budget == 0) {
        return error;
    }
    return control_settle(error / 2, budget - 1);
}

/* Clean: a bound that stays fixed, two assertions, no pointer to a pointer. */
int guidance_average(const struct sample *samples, size_t count)
{
    int sum = 0;

    assert(samples != NULL);
    assert(count > 0 && count <= SENSORS);
    for (size_t i = 0; i < count; i++) {
        sum += samples[i].value;
    }
    return sum / (int)count;
}

/* Clean: a static function of the same name as one in telemetry.c, which is another function. */
static int clamp(int value)
{
    return value > 100 ? 100 : value;
}

int guidance_limit(int value)
{
    return clamp(value);
}
