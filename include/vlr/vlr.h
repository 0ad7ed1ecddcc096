/* The C API. C99; opaque handles; nothing is thrown across it. It covers vlr/reranker.h and the
 * headers beside it, which say more.
 *
 * Errors. A function that can fail returns a vlr_code, 0 for success, and writes code and message
 * to `error`, which may be NULL.
 *
 * Ownership. A vlr_reranker, vlr_request or vlr_options belongs to the caller, who closes or frees
 * it. Text and bytes that are passed in are copied. Text that is given out through a char** is the
 * caller's; vlr_string_free() frees it. Other const char* stay valid as long as what they are of.
 * All text is UTF-8.
 *
 * Threads. One thread at a time may use a handle, but for vlr_cancel(). Different handles are
 * independent. Callbacks come from the thread of the call, except where they say something else.
 * Scoring or prefetching with a reranker that is at it, from another thread or from a callback, is
 * VLR_INVALID_ARGUMENT. So is the use of one in a child of fork(), which has to open its own. vlr's
 * own threads are named vlr-... and take no signals.
 *
 * Sizes. Structs may grow at their end in later versions. Those that the library writes or reads
 * start with their size, which the VLR_..._INIT macros set; arrays of results come with the size of
 * one. The library touches no byte behind it. */
#ifndef VLR_VLR_H_
#define VLR_VLR_H_

#include <stddef.h>
#include <stdint.h>

#include "vlr/export.h"
#include "vlr/version.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum vlr_code {
  VLR_OK = 0,
  VLR_INVALID_ARGUMENT = 1, /* the caller's value */
  VLR_NOT_FOUND = 2,        /* no such file or tensor */
  VLR_DATA_LOSS = 3,        /* a file is damaged */
  VLR_UNIMPLEMENTED = 4,    /* valid, but nobody does it */
  VLR_OUT_OF_MEMORY = 5,    /* no memory or no thread to be had, or a cap would be exceeded */
  VLR_DEVICE = 6,           /* any other error of the device */
  VLR_CANCELLED = 7,        /* the caller asked to stop */
  VLR_INTERNAL = 8          /* a bug of vlr's */
} vlr_code;

typedef struct vlr_error {
  size_t struct_size;
  vlr_code code;
  char message[1024]; /* cut if longer; always terminated */
} vlr_error;
#define VLR_ERROR_INIT \
  { sizeof(vlr_error), VLR_OK, "" }

typedef enum vlr_document_status {
  VLR_DOCUMENT_OK = 0,
  VLR_DOCUMENT_EMPTY = 1, /* scored, as VLR_DOCUMENT_OK */
  VLR_DOCUMENT_BAD_MEDIA = 2,
  VLR_DOCUMENT_TOO_LONG = 3,
  VLR_DOCUMENT_INVALID = 4,
  VLR_DOCUMENT_CANCELLED = 5,
  VLR_DOCUMENT_ERROR = 6,
  VLR_DOCUMENT_UNREAD = 7 /* scored, but max_length left nothing of the document */
} vlr_document_status;

typedef struct vlr_result {
  int64_t request; /* which request, for vlr_score_many(); else 0 */
  int64_t index;   /* of the document in its request */
  vlr_document_status status;
  float log_odds; /* of "yes" against "no"; this and score only if it is OK, EMPTY or UNREAD */
  float score;    /* in (0, 1) */
  int64_t num_tokens;
  int truncated;     /* text was cut to fit max_length or max_tokens_* */
  char message[512]; /* empty if the status is OK; cut if longer */
} vlr_result;

/* What a call cost, over all of its requests. */
typedef struct vlr_usage {
  size_t struct_size;
  int64_t tokens; /* run through the decoder; shared prefixes count once */
  int64_t shared_prefix_tokens;
  int64_t image_tokens; /* that the vision tower made */
  int64_t batches;
  int64_t decoded_media; /* images and videos */
  int64_t vision_batches;
  int64_t vision_cache_hits;
  int64_t prefix_cache_hits;
  int64_t replayed_batches; /* that ran as a CUDA graph */
  double load_seconds;      /* opening the model */
  double media_seconds;     /* reading, decoding, resizing */
  double prompt_seconds;
  double vision_seconds;
  double text_seconds;
  double total_seconds; /* of the call */
} vlr_usage;
#define VLR_USAGE_INIT \
  { sizeof(vlr_usage), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0 }

typedef struct vlr_options vlr_options;
typedef struct vlr_reranker vlr_reranker;
typedef struct vlr_request vlr_request;

/* "0.2.0": of the library that runs, as VLR_VERSION is that of this header. */
VLR_API const char* vlr_version(void);
/* "ok", "bad_media", ... */
VLR_API const char* vlr_document_status_name(vlr_document_status status);
VLR_API void vlr_string_free(char* text); /* NULL is fine */

/* ---- Options: what a model is told when it is opened. docs/options.md lists them. ---- */

/* All at their defaults; NULL: no memory. */
VLR_API vlr_options* vlr_options_new(void);
VLR_API void vlr_options_free(vlr_options* options); /* NULL is fine */
/* The name of option number `i`; NULL behind the last one. */
VLR_API const char* vlr_options_name(size_t i);
/* Sets one by its name: "max_length" to "2048", "gpu_memory" to "20GB", "exact" to "false",
 * "quant_rules" to "vision=nf4,layers.0.=none". VLR_INVALID_ARGUMENT: no such option, a value of another
 * type or out of its range; the options are then as they were. Names of devices, modes and layers are
 * checked when a model is opened. */
VLR_API vlr_code vlr_options_set(vlr_options* options, const char* name, const char* value,
                                 vlr_error* error);
/* The value as vlr_options_set() takes it. */
VLR_API vlr_code vlr_options_get(const vlr_options* options, const char* name, char** value,
                                 vlr_error* error);

/* Callbacks. What they are given is valid during the call; `user` is what was given with them. NULL
 * in the place of a function: none, as by default. */

/* Warnings, and what a preset set, one line each; any thread, one at a time. */
typedef void (*vlr_on_log)(void* user, const char* line);
VLR_API void vlr_options_on_log(vlr_options* options, vlr_on_log function, void* user);

typedef struct vlr_load_progress {
  size_t struct_size;
  int64_t bytes_done;
  int64_t bytes_total;
  const char* what; /* "weights", which bytes are of; then "kernels" and "self-check" */
} vlr_load_progress;
/* While a model is opened: several times a second at most, from the thread that opens it. */
typedef void (*vlr_on_progress)(void* user, const vlr_load_progress* progress);
VLR_API void vlr_options_on_progress(vlr_options* options, vlr_on_progress function, void* user);

typedef struct vlr_memory_event {
  size_t struct_size;
  const char* purpose;  /* "weights", "arena", "inputs", ... */
  const char* layer;    /* "layers.3": its weights alone; empty: all of the purpose */
  int64_t device_bytes; /* of the purpose, or of the layer */
  int64_t host_bytes;
  int64_t device_total; /* of all purposes */
  int64_t host_total;
  int scoring; /* 0: while the model is opened */
} vlr_memory_event;
/* Every change of what is held for a purpose: from the thread that makes it, one at a time, also
 * during vlr_close(). Must not use the reranker. */
typedef void (*vlr_on_memory)(void* user, const vlr_memory_event* event);
VLR_API void vlr_options_on_memory(vlr_options* options, vlr_on_memory function, void* user);

/* Values of the graphs as they are computed: "text.0/layers.3.mlp.residual", f32. */
typedef void (*vlr_on_value)(void* user, const char* name, const int64_t* shape, size_t rank,
                             const float* data);
/* Whether vlr_on_value is to get the value of this name. */
typedef int (*vlr_wants_value)(void* user, const char* name);
/* `wants` may be NULL: all. */
VLR_API void vlr_options_on_value(vlr_options* options, vlr_on_value function,
                                  vlr_wants_value wants, void* user);

typedef struct vlr_node_timing {
  size_t struct_size;
  const char* run;  /* "vision.0", "prefix.0", "text.0" */
  const char* name; /* "layers.3.mlp.down_proj" */
  const char* op;   /* "linear" */
  double seconds;
  double flops;
  double bytes;
} vlr_node_timing;
/* Every op of a run, in order. */
typedef void (*vlr_on_node)(void* user, const vlr_node_timing* timing);
VLR_API void vlr_options_on_node(vlr_options* options, vlr_on_node function, void* user);

typedef struct vlr_copy_timing {
  size_t struct_size;
  const char* run;  /* as of the nodes */
  const char* name; /* "model.language_model.layers.3." */
  double start;     /* seconds since the run's first node started; negative: before that */
  double seconds;
  double bytes;
} vlr_copy_timing;
/* Copies of weights that are not on the GPU for good, after the nodes of a run; only with
 * vlr_on_node. */
typedef void (*vlr_on_copy)(void* user, const vlr_copy_timing* timing);
VLR_API void vlr_options_on_copy(vlr_options* options, vlr_on_copy function, void* user);

/* ---- A model that is open ---- */

/* Opens a checkpoint folder. `options` may be NULL (defaults) and may be freed at once. *out is
 * NULL unless it succeeds. */
VLR_API vlr_code vlr_open(const char* path, const vlr_options* options, vlr_reranker** out,
                          vlr_error* error);
VLR_API void vlr_close(vlr_reranker* reranker); /* NULL is fine */

/* Valid until vlr_close(). */
VLR_API const char* vlr_model_name(const vlr_reranker* reranker); /* last part of the path */
VLR_API const char* vlr_device(const vlr_reranker* reranker); /* "cpu", "cuda:0 (NVIDIA H200)" */
VLR_API const char* vlr_dtype(const vlr_reranker* reranker);  /* "f32", "bf16", "f16" */
VLR_API const char* vlr_quant(const vlr_reranker* reranker);  /* "none", "nf4", ..., "mixed" */
VLR_API const char* vlr_preset(const vlr_reranker* reranker); /* what it set and why; empty: none */

/* Bytes that are held now, by purpose and by layer, as JSON (docs/formats.md). */
VLR_API vlr_code vlr_memory_json(const vlr_reranker* reranker, char** json, vlr_error* error);
/* The most bytes that were ever taken on the device. */
VLR_API int64_t vlr_peak_memory(const vlr_reranker* reranker);

/* ---- Requests. Documents are numbered as they are added; VLR_QUERY stands for the query where a
 * document is asked for. ---- */

#define VLR_QUERY ((int64_t)-1)
VLR_API vlr_request* vlr_request_new(void);          /* NULL: no memory */
VLR_API void vlr_request_free(vlr_request* request); /* NULL is fine */
/* The official JSON form, as `vlr score` takes it. *out is NULL unless it succeeds. */
VLR_API vlr_code vlr_request_from_json(const char* json, vlr_request** out, vlr_error* error);
VLR_API vlr_code vlr_request_set_instruction(vlr_request* request, const char* text,
                                             vlr_error* error);
/* Where relative paths start, instead of the option media_root. */
VLR_API vlr_code vlr_request_set_media_root(vlr_request* request, const char* path,
                                            vlr_error* error);
/* Of video files, instead of the options fps and max_frames. */
VLR_API vlr_code vlr_request_set_fps(vlr_request* request, double fps, vlr_error* error);
VLR_API vlr_code vlr_request_set_max_frames(vlr_request* request, int64_t max_frames,
                                            vlr_error* error);
/* What the JSON key of this name says: "fps", "sample_fps", "max_frames", "min_pixels", "max_pixels",
 * "max_tokens_per_doc", "max_tokens_per_query" or "top_n" (docs/formats.md). */
VLR_API vlr_code vlr_request_set_number(vlr_request* request, const char* key, double value,
                                        vlr_error* error);
/* Whether vlr_score_json() shows each document beside its score. */
VLR_API vlr_code vlr_request_set_return_documents(vlr_request* request, int on, vlr_error* error);
/* `index`, if not NULL, gets the document's number. */
VLR_API vlr_code vlr_request_add_document(vlr_request* request, int64_t* index, vlr_error* error);
VLR_API int64_t vlr_request_num_documents(const vlr_request* request);
/* The document could not be read: its status becomes VLR_DOCUMENT_INVALID with this message. */
VLR_API vlr_code vlr_request_set_document_error(vlr_request* request, int64_t document,
                                                const char* message, vlr_error* error);
VLR_API vlr_code vlr_request_add_text(vlr_request* request, int64_t document, const char* text,
                                      vlr_error* error);
/* The same for `size` bytes, which may hold NULs and need no end. */
VLR_API vlr_code vlr_request_add_text_n(vlr_request* request, int64_t document, const char* text,
                                        size_t size, vlr_error* error);
/* Where a path is asked for, file: and data: URIs will do too, and http(s) URLs with the option
 * allow_remote. */
VLR_API vlr_code vlr_request_add_image_file(vlr_request* request, int64_t document,
                                            const char* path, vlr_error* error);
/* The bytes of an image file; `name`, if not NULL, stands for it in messages. */
VLR_API vlr_code vlr_request_add_image(vlr_request* request, int64_t document, const char* name,
                                       const void* data, size_t size, vlr_error* error);
/* A video file, or the bytes of one. */
VLR_API vlr_code vlr_request_add_video_file(vlr_request* request, int64_t document,
                                            const char* path, vlr_error* error);
VLR_API vlr_code vlr_request_add_video(vlr_request* request, int64_t document, const char* name,
                                       const void* data, size_t size, vlr_error* error);
/* A video as image files of its frames, evenly sampled. */
VLR_API vlr_code vlr_request_add_frames(vlr_request* request, int64_t document,
                                        const char* const* paths, size_t num_paths,
                                        vlr_error* error);
/* A video as the bytes of image files of its frames: data[i] has sizes[i] bytes. `name`, if not
 * NULL, stands for each in messages. */
VLR_API vlr_code vlr_request_add_frames_data(vlr_request* request, int64_t document,
                                             const char* name, const void* const* data,
                                             const size_t* sizes, size_t num_frames,
                                             vlr_error* error);

/* ---- Scores ---- */

/* Called in the thread of the scoring call once a document has its status. */
typedef void (*vlr_on_result)(void* user, const vlr_result* result);

/* Scores every document: results[i] is that of document i, and there are
 * vlr_request_num_documents() of them, each `result_size` bytes from the one before it:
 * sizeof(vlr_result). `usage` may be NULL, and so may `on_result`. An error is that of the request
 * as a whole, and leaves results and usage alone; what goes wrong with a document stands in its
 * result. */
VLR_API vlr_code vlr_score(vlr_reranker* reranker, const vlr_request* request, vlr_result* results,
                           size_t result_size, vlr_usage* usage, vlr_on_result on_result,
                           void* user, vlr_error* error);
/* The same for several requests, whose documents share batches. The results of the first request
 * come first, then those of the second, and so on. `usage` is of the whole call. */
VLR_API vlr_code vlr_score_many(vlr_reranker* reranker, const vlr_request* const* requests,
                                size_t num_requests, vlr_result* results, size_t result_size,
                                vlr_usage* usage, vlr_on_result on_result, void* user,
                                vlr_error* error);
/* Scores a request and gives the JSON object that `vlr score` prints, with what vlr_explain_json()
 * tells if `explain` is not 0. */
VLR_API vlr_code vlr_score_json(vlr_reranker* reranker, const vlr_request* request, int explain,
                                char** json, vlr_error* error);
/* What would be fed to the model for every document, which is not scored: prompt, tokens,
 * positions, grids. As JSON (docs/formats.md). */
VLR_API vlr_code vlr_explain_json(vlr_reranker* reranker, const vlr_request* request, char** json,
                                  vlr_error* error);
/* Decodes the images and videos of a request, its query's too, and keeps their features in the
 * vision cache. `num_failed`, if not NULL, gets how many could not be used; `json`, if not NULL,
 * what became of each (docs/formats.md). `usage` may be NULL. */
VLR_API vlr_code vlr_prefetch(vlr_reranker* reranker, const vlr_request* request,
                              int64_t* num_failed, char** json, vlr_usage* usage, vlr_error* error);
/* Ends a running call that scores after its current batch; what was not reached is
 * VLR_DOCUMENT_CANCELLED. Returns at once; any thread. */
VLR_API void vlr_cancel(vlr_reranker* reranker);

/* ---- Memory that a model would take, before it is loaded ---- */

/* What is assumed about the work, at most. */
typedef struct vlr_workload {
  size_t struct_size;
  int64_t documents;
  int64_t tokens_per_document; /* with the query, without images */
  int64_t images_per_document;
  int64_t images_per_query;
  int64_t patches_per_image; /* 4800: 1280 x 960 pixels */
  int pictures;              /* not 0: the JSON has SVG documents of the memory of passes */
} vlr_workload;
#define VLR_WORKLOAD_INIT \
  { sizeof(vlr_workload), 100, 256, 0, 0, 4800, 0 }

/* `options` and `workload` may be NULL: defaults. `bytes`, if not NULL, gets the sum on the device;
 * `json`, if not NULL, all of it by purpose and layer (docs/formats.md). VLR_OUT_OF_MEMORY: more
 * than the option gpu_memory; the message names the smallest cap that works. */
VLR_API vlr_code vlr_plan(const char* path, const vlr_options* options,
                          const vlr_workload* workload, int64_t* bytes, char** json,
                          vlr_error* error);

#ifdef __cplusplus
}
#endif

#endif /* VLR_VLR_H_ */
