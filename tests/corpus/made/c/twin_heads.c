/* One body under two heads, and braces that only the preprocessor can count. */
typedef struct queue { int items[8]; int used; } queue_t;
extern int queue_lock(queue_t *q);

#if defined(WITH_RETURN)
int queue_clear(queue_t *q)  // case: P10-R1 clean
#else
void queue_clear(queue_t *q)  // case: P10-R1 clean
#endif
{
    int i;

    if (q == 0) {
        return;
    }
    for (i = 0; i < 8; i++) {  // case: P10-R2 clean
        q->items[i] = 0;
    }
#ifdef STRICT
    if (queue_lock(q) != 0) {
#else
    if (q->used > 0) {
#endif
        q->used = 0;
    }
}

#ifdef LOCKED
static int queue_push(queue_t *q, int item) {  // case: P10-R1 clean
    if (queue_lock(q) != 0) {
#else
static int queue_push_unlocked(queue_t *q, int item) {  // case: P10-R1 clean
    if (q->used < 8) {
#endif
        q->items[q->used & 7] = item;
        q->used++;
    }
    return q->used;
}

int after_the_mess(int n) { return n ? after_the_mess(n - 1) : 0; }  // case: P10-R1 violation

#ifdef FAST
int drain(queue_t *q) {
    int n = 0;
    while (n < 8) {  // case: P10-R2 clean
#else
int drain(queue_t *q) {
    int n = 0;
    while (q->items[n] != -1) {  // case: P10-R2 violation
#endif
        n++;
    }
    return n;
}
