/* A head comment before the guard, as is usual. */
#if !defined(GUARD_H)  // case: P10-R8 clean
#define GUARD_H  // case: P10-R8 clean

#include <stdint.h>  // case: P10-R8 clean

#ifdef __cplusplus  // case: P10-R8 violation
extern "C" {
#endif

typedef uint32_t ticks;  // case: P10-R9 clean
typedef struct clock *clock_ref;  // case: P10-R9 violation
typedef int (*clock_hook)(ticks now);  // case: P10-R9 violation

#define CLOCK_NOW(c) ((c)->now)  // case: P10-R9 violation
#define CLOCK_STEP(a, b) ((a) * (b))  // case: P10-R9 clean

#ifdef __cplusplus
}
#endif

#endif
