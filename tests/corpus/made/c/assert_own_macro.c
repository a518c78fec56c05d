#include <assert.h>

#define REQUIRE(condition) assert((condition) && "precondition")
#define ENSURE(condition) REQUIRE(condition)

int checked(int n)  // case: P10-R5 clean -- its macros are made of assert
{
    REQUIRE(n > 0);
    ENSURE(n < 9);
    return n;
}
