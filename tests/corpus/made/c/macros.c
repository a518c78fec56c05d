/* Macros: bodies that are whole, bodies that are not, and directives in odd spellings. */
#define LIMIT 10  // case: P10-R8 clean
#define NOTHING  // case: P10-R8 clean
#define ADD(a, b) ((a) + (b))  // case: P10-R8 clean
#define SWAP(a, b) do { int t = (a); (a) = (b); (b) = t; } while (0)  // case: P10-R8 clean
#define WORD unsigned long int  // case: P10-R8 clean
#define NAME_OF(x) #x  // case: P10-R8 clean
#define HASHES "##"  // case: P10-R8 clean
#define CELL struct { int value; }  // case: P10-R8 clean
#define COUNTER(name) static int name;  // case: P10-R8 clean
#define LATER LIMIT  // case: P10-R8 clean
#define DOTS "..."  // case: P10-R8 clean
#define MAX_OF(a, b) \
    ((a) > (b) ? (a) : (b))
#define JOIN(a, b) a##b  // case: P10-R8 violation
#define JOIN_DIGRAPH(a, b) a%:%:b  // case: P10-R8 violation
#define TRACE(...) trace(__VA_ARGS__)  // case: P10-R8 violation
#define TRACE_GNU(args...) trace(args)  // case: P10-R8 violation
#define ITSELF (1 + ITSELF)  // case: P10-R8 violation
#define PING(n) PONG(n)  // case: P10-R8 violation
#define PONG(n) PING(n)  // case: P10-R8 violation
#define BEGIN {  // case: P10-R8 violation
#define END }  // case: P10-R8 violation
#define WHEN_OK if (ok)  // case: P10-R8 violation
#define FOREVER for (;;)  // case: P10-R8 violation
#define PLUS +  // case: P10-R8 violation
#define OPEN_CALL trace(  // case: P10-R8 violation
#define OTHERWISE } else {  // case: P10-R8 violation
#define LABEL(n) case n:  // case: P10-R8 violation
#define HALF_STRING(a) ((a) + 1  // case: P10-R8 violation
#define AS_INT (int)  // case: P10-R8 violation
#undef LATER  // case: P10-R8 violation
  #  /* odd */ undef DOTS  // case: P10-R8 violation
%:undef NOTHING  // case: P10-R8 violation
#ifdef SIMULATION  // case: P10-R8 violation
#define STEP 1
#endif
#ifndef DEPTH  // case: P10-R8 violation
#define DEPTH 4
#endif
#if LIMIT > 3 && \
    defined(STEP)
#endif

const char *quoted(void)
{
    return "#undef LIMIT";  // case: P10-R8 clean
}
/*
#undef LIMIT  // case: P10-R8 clean
#define JOIN2(a, b) a##b  // case: P10-R8 clean
*/
