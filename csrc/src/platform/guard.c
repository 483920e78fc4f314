/* SPDX-License-Identifier: MIT */
/*
 * guard.c - the SIGBUS guard. The kernel sends SIGBUS to whoever touches a mapped page that the file no
 * longer has, or that the disk cannot deliver. With the guard installed, a fault inside one of our mappings
 * sets that mapping's flag, replaces all its pages by zeros, and lets the instruction go on; whoever was
 * reading or writing looks at the flag before it believes the outcome (chron__map_faulted). Faults
 * elsewhere go to the handler that was there before.
 *
 * Others install theirs, too, also after ours: Python's faulthandler, crash reporters, a plain signal(). So it is looked at
 * again at each mapping who would get a fault, and our handler is put in front again. Whoever stands in between may pass a
 * fault on to the one of ours that was there before it came: each time ours goes in front it is another entry, which
 * knows what was before itself, so no fault goes round in a circle.
 *
 * The handler reads the table of mappings without locks: chunks of slots are added at the front and never
 * freed; a slot is filled before its base is set, and emptied before its mapping goes. [GUARD]
 *
 * The table, and the handlers that were there before, are the global state that chronicle.h speaks of.
 */
#if defined(__linux__)
#define _GNU_SOURCE
#elif defined(__APPLE__)
#define _DARWIN_C_SOURCE
#endif

#include "chronicle.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/atomics.h"
#include "base/error.h"
#include "platform/platform.h"

#define CHUNK_SLOTS 256u
#define ENTRIES_MAX 8u /* how often others may come in front; then they stay there */
#define SLOT_FREE 0u
#define SLOT_TAKEN 1u /* being filled: no mapping begins there */

typedef struct guard_slot {
    chron__aptr base; /* [GUARD] SLOT_FREE, SLOT_TAKEN, or where the mapping begins */
    size_t bytes;     /* written while SLOT_TAKEN only, as is flags */
    int flags;        /* CHRON__MAP_... */
    chron__a32 fault; /* [FAULT] how many faults there were */
} guard_slot;

typedef struct guard_chunk {
    struct guard_chunk *next; /* does not change once the chunk is in the list */
    guard_slot slots[CHUNK_SLOTS];
} guard_chunk;

static chron__aptr first_chunk; /* [GUARD] */
static chron__a32 installed;    /* [GUARD] */
static chron__a32 unguarded;    /* [FAULT] the flag of mappings that have no slot: never set */
chron__a32 chron__guard_faults; /* [FAULT] the sum of all slots */
static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before[ENTRIES_MAX]; /* written before the entry is installed */
static unsigned front;                       /* with install_lock: the entry that was installed last */

static guard_chunk *chunks(void)
{
    return (guard_chunk *)chron__get_acquire_ptr(&first_chunk); /* [GUARD] with add_chunk */
}

/* ------------------------------------------------------------------------------------- the handler */

static guard_slot *find(uintptr_t address, uintptr_t *base)
{
    for (guard_chunk *chunk = chunks(); chunk; chunk = chunk->next) {
        for (size_t i = 0; i < CHUNK_SLOTS; i++) {
            guard_slot *slot = &chunk->slots[i];

            *base = chron__get_acquire_ptr(&slot->base);
            if (*base > SLOT_TAKEN && address >= *base && address - *base < slot->bytes)
                return slot;
        }
    }
    return NULL;
}

static int replace_pages(uintptr_t base, size_t bytes, int flags)
{
    void *at = (void *)base;

    if (mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0) == MAP_FAILED)
        return -1;
    if (flags & CHRON__MAP_DONTFORK)
        chron__os_dont_fork(at, bytes);
    return 0;
}

/* By kill() or the like: then there is no address, and no instruction that would fault again. */
static int was_sent(const siginfo_t *info)
{
    return info->si_code <= 0 || info->si_code == SI_USER || info->si_code == SI_QUEUE;
}

static int is_standard(const struct sigaction *action)
{
    return !(action->sa_flags & SA_SIGINFO) && (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN);
}

static void pass_on(const struct sigaction *other, int signal_number, siginfo_t *info, void *context)
{
    if (other->sa_flags & SA_SIGINFO) {
        other->sa_sigaction(signal_number, info, context);
    } else if (is_standard(other)) {
        /* The instruction runs again, faults again and meets the default: a core dump from where it belongs. */
        struct sigaction standard = {.sa_handler = SIG_DFL};

        if (was_sent(info) && other->sa_handler == SIG_IGN)
            return;
        (void)sigaction(signal_number, &standard, NULL);
        if (was_sent(info))
            (void)raise(signal_number); /* comes when this handler returns */
    } else {
        other->sa_handler(signal_number);
    }
}

static void on_fault(unsigned entry, int signal_number, siginfo_t *info, void *context)
{
    int saved = errno;
    uintptr_t base;
    guard_slot *slot = was_sent(info) ? NULL : find((uintptr_t)info->si_addr, &base);
    int status = -1;

    if (slot) {
        (void)chron__count_up32(&chron__guard_faults); /* [FAULT] both first: zeros must not be seen without it */
        (void)chron__count_up32(&slot->fault);         /* [FAULT] */
        chron__fence_release();                        /* [FAULT] */
        status = replace_pages(base, slot->bytes, slot->flags);
    }
    errno = saved;
    if (status < 0)
        pass_on(&before[entry], signal_number, info, context);
}

#define ENTRY(n)                                                             \
    static void entry_##n(int signal_number, siginfo_t *info, void *context) \
    {                                                                        \
        on_fault(n, signal_number, info, context);                           \
    }

ENTRY(0)
ENTRY(1)
ENTRY(2)
ENTRY(3)
ENTRY(4)
ENTRY(5)
ENTRY(6)
ENTRY(7)

static void (*const entries[ENTRIES_MAX])(int, siginfo_t *, void *) = {
    entry_0, entry_1, entry_2, entry_3, entry_4, entry_5, entry_6, entry_7,
};

/* -------------------------------------------------------------------------------------- in front */

/* Which of our entries is it? -1: somebody else's. */
static int entry_of(const struct sigaction *action)
{
    for (unsigned i = 0; (action->sa_flags & SA_SIGINFO) && i < ENTRIES_MAX; i++)
        if (action->sa_sigaction == entries[i])
            return (int)i;
    return -1;
}

/* With install_lock: see to it that a fault comes to us first. 0 or -errno. */
static int come_in_front(int is_first)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction now;
    unsigned next = front;
    int entry;

    if (sigaction(SIGBUS, NULL, &now) < 0)
        return -errno;
    entry = entry_of(&now);
    if (entry >= 0) {
        front = (unsigned)entry; /* those that had come in front have gone again */
        return 0;
    }
    if (!is_first && !is_standard(&now)) /* the standard passes nothing on: no circle */
        next++;
    if (next == ENTRIES_MAX)
        return 0;
    before[next] = now;
    front = next;
    (void)sigemptyset(&action.sa_mask);
    action.sa_sigaction = entries[next];
    return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}

/* A fault while the signal is blocked ends the process, whoever wants to handle it. */
static void unblock(void)
{
    sigset_t fault;

    (void)sigemptyset(&fault);
    (void)sigaddset(&fault, SIGBUS);
    (void)pthread_sigmask(SIG_UNBLOCK, &fault, NULL);
}

static void lock_install(void)
{
    (void)pthread_mutex_lock(&install_lock);
}

static void unlock_install(void)
{
    (void)pthread_mutex_unlock(&install_lock);
}

/* --------------------------------------------------------------------------------------- the table */

static guard_slot *take_slot(guard_chunk *chunk)
{
    for (size_t i = 0; i < CHUNK_SLOTS; i++) {
        if (chron__cas_ptr(&chunk->slots[i].base, SLOT_FREE, SLOT_TAKEN)) /* [GUARD] */
            return &chunk->slots[i];
    }
    return NULL;
}

static guard_chunk *add_chunk(void)
{
    guard_chunk *chunk = calloc(1, sizeof *chunk);

    if (!chunk)
        return NULL;
    do
        chunk->next = chunks();
    while (!chron__cas_ptr(&first_chunk, (uintptr_t)chunk->next, (uintptr_t)chunk)); /* [GUARD] */
    return chunk;
}

int chron__guard_add(chron__map *map, int flags)
{
    guard_slot *slot = NULL;

    map->fault = &unguarded;
    map->guard_slot = NULL;
    if (!chron__get_acquire32(&installed)) /* [GUARD] with chron_guard_install */
        return 0;
    lock_install();
    (void)come_in_front(0); /* cannot fail where it did not before */
    unlock_install();
    unblock();
    for (guard_chunk *chunk = chunks(); chunk && !slot; chunk = chunk->next)
        slot = take_slot(chunk);
    while (!slot) {
        guard_chunk *chunk = add_chunk();

        if (!chunk)
            return -ENOMEM;
        slot = take_slot(chunk); /* other threads may have filled even the new one */
    }
    slot->bytes = map->bytes;
    slot->flags = flags;
    chron__set32(&slot->fault, 0);
    chron__set_release_ptr(&slot->base, (uintptr_t)map->base); /* [GUARD] */
    map->fault = &slot->fault;
    map->guard_slot = slot;
    return 0;
}

void chron__guard_remove(chron__map *map)
{
    guard_slot *slot = map->guard_slot;

    CHRON__ASSERT(!slot ||
                  chron__get_acquire_ptr(&slot->base) == (uintptr_t)map->base); /* [GUARD] ours since the add */
    if (slot) {
        (void)chron__add32(&chron__guard_faults, 0u - chron__get32(&slot->fault)); /* [FAULT] */
        chron__set_release_ptr(&slot->base, SLOT_FREE);                            /* [GUARD] */
    }
    map->fault = &unguarded;
    map->guard_slot = NULL;
}

int chron__guard_find_fault(const void *data, size_t bytes)
{
    const uintptr_t from = (uintptr_t)data;

    for (guard_chunk *chunk = chunks(); chunk; chunk = chunk->next) {
        for (size_t i = 0; i < CHUNK_SLOTS; i++) {
            guard_slot *slot = &chunk->slots[i];
            uintptr_t base = chron__get_acquire_ptr(&slot->base); /* [GUARD] */

            if (base > SLOT_TAKEN && chron__get32(&slot->fault) && from < base + slot->bytes && base < from + bytes)
                return 1;
        }
    }
    return 0;
}

int chron_guard_faulted(const void *data, size_t length)
{
    if (!data)
        return chron__any_faulted();
    return chron__is_faulted(data, length);
}

/* --------------------------------------------------------------------------------------- installing */

int chron_guard_install(void)
{
    int status;

    lock_install();
    status = come_in_front(!chron__get32(&installed));
    if (status == 0 && !chron__get32(&installed)) {
        (void)pthread_atfork(lock_install, unlock_install, unlock_install); /* a child must not find it taken */
        chron__set_release32(&installed, 1);                                /* [GUARD] with chron__guard_add */
    }
    unlock_install();
    return status < 0 ? chron__fail_sys(status, "", "cannot install the handler for SIGBUS") : 0;
}
