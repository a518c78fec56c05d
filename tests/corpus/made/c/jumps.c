/* Jumps, and the words of jumps: goto here is no jump. */
#include <setjmp.h>

#define BAIL_OUT goto fail  /* case: P10-R1 violation */
#define NO_JUMP "goto fail" /* case: P10-R1 clean */

static jmp_buf place;
static sigjmp_buf signal_place;

struct port {
    int setjmp_count;
    int (*longjmp)(int pin);
};

int forward(int n)
{
    if (n < 0) {
        goto fail;  // case: P10-R1 violation
    }
    return n;
fail:
    return -1;
}

int table_jump(int n)
{
    static const void *const targets[] = {&&one, &&two};

    goto *targets[n & 1];  // case: P10-R1 violation
one:
    return 1;
two:
    return 2;
}

int spliced(int n)
{
    if (n == 3)
        go\
to out;
    n++;
out:
    return n;
}

const char *goto_name(int goto_count)
{
    int go_to = goto_count;  // case: P10-R1 clean

    (void)go_to;
    return "goto fail; longjmp(place, 1);";  // case: P10-R1 clean
}

int save(void)
{
    return setjmp(place);  // case: P10-R1 violation
}

int save_signals(void)
{
    return sigsetjmp(signal_place, 1);  // case: P10-R1 violation
}

void back(int why)
{
    _longjmp(place, why);  // case: P10-R1 violation
}

int toggle(const struct port *p)
{
    return p->setjmp_count + p->longjmp(3);  // case: P10-R1 clean
}

int dead_branch(int n)
{
#if 0
#if 1
    goto out;  // case: P10-R1 clean
#else
    longjmp(place, 2);  // case: P10-R1 clean
#endif
#elif defined(SLOW)
    if (n > 9)
        goto out;  // case: P10-R1 violation
#else
    n++;
#endif
out:
    return n;
}

int rarely(int n)
{
#ifdef NEVER_DEFINED_ANYWHERE
    siglongjmp(signal_place, n);  // case: P10-R1 violation
#endif
    /* multi
       goto out;  // case: P10-R1 clean
     */
    return n;
}
