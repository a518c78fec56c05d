/* C23, GNU and Microsoft words around plain constructs; also a file that no compiler takes whole. */
#include <stddef.h>
#define EXPORT __declspec(dllexport)
#define NOISE(x)
#define PRINTER(f) extern void f(int)

typedef struct port { int value; struct port *next; } port_t;

extern int poll_device(void);

[[nodiscard]] int fresh(int n) { return n ? fresh(n - 1) : 0; }  // case: P10-R1 violation
[[maybe_unused]] static int spare_mode;  // case: P10-R6 violation

constexpr int lanes = 4;
auto guess = 3.0f;

EXPORT int __stdcall exported(int n) { return n ? exported(n - 1) : 0; }  // case: P10-R1 violation

int __cdecl walks(port_t *p)
{
    typeof(p) q = nullptr;
    int n = 0b1010'1010;

    for (q = p; q != nullptr; q = q->next) {  // case: P10-R2 violation
        n++;
    }
    spare_mode = n;
    return n;
}

NOISE(a strange) int strange(int n)
{
    for (int i = 0; i < lanes; ++i) {  // case: P10-R2 clean
        n += _Generic(n, int: poll_device(), default: 0);
    }
    return n;
}

int guarded(port_t *p)
{
    __try {
        return p->value;  // case: P10-R7 violation
    } __except (1) {
        goto out;  // case: P10-R1 violation
    }
out:
    return 0;
}

int ranges(int n)
{
    switch (n) {
    case 1 ... 5:
        return n ?: 3;
    [[fallthrough]];
    default:
        break;
    }
    poll_device();  // case: P10-R7 violation
    return ({ int m = n; m * 2; });
}

PRINTER(print_number)
int __attribute__((section(".text.fast"), used)) placed(int n)
{
    __asm__ volatile("nop; goto nowhere" : : : "memory");  // case: P10-R1 clean
    while (poll_device() != n) {  // case: P10-R2 violation
    }
    return n;
}

#elifdef STRAY
#else

static int broken(int n { return n; }

int after_broken(int n)
{
    while (poll_device() != n) {  // case: P10-R2 violation
    }
    if (n < 0) {
        goto out;  // case: P10-R1 violation
    }
out:
    return n;
}
