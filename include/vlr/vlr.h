/* The C API. C99; opaque handles; nothing throws across it. It mirrors vlr/reranker.h, which says
 * more.
 *
 * Every function that can fail returns a vlr_code (0 is success) and, where `error` is not NULL,
 * writes code and message there. Strings are UTF-8, copied where they are kept. A reranker serves
 * one thread at a time. */
#ifndef VLR_VLR_H_
#define VLR_VLR_H_

#include <stddef.h>
#include <stdint.h>

#include "vlr/export.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum vlr_code {
  VLR_OK = 0,
  VLR_INVALID_ARGUMENT = 1,
  VLR_NOT_FOUND = 2,
  VLR_DATA_LOSS = 3,
  VLR_UNIMPLEMENTED = 4,
  VLR_OUT_OF_MEMORY = 5,
  VLR_DEVICE = 6,
  VLR_CANCELLED = 7,
  VLR_INTERNAL = 8
} vlr_code;

typedef struct vlr_error {
  vlr_code code;
  char message[1024]; /* cut if longer; always terminated */
} vlr_error;

typedef enum vlr_document_status {
  VLR_DOCUMENT_OK = 0,
  VLR_DOCUMENT_EMPTY = 1, /* scored, as VLR_DOCUMENT_OK */
  VLR_DOCUMENT_BAD_MEDIA = 2,
  VLR_DOCUMENT_TOO_LONG = 3,
  VLR_DOCUMENT_INVALID = 4,
  VLR_DOCUMENT_CANCELLED = 5,
  VLR_DOCUMENT_ERROR = 6
} vlr_document_status;

typedef struct vlr_result {
  int64_t index; /* of the document in its request */
  vlr_document_status status;
  float log_odds; /* both only if the status is OK or EMPTY */
  float score;
  int64_t num_tokens;
  int truncated;
  char message[512]; /* empty if the status is OK; cut if longer */
} vlr_result;

typedef struct vlr_options {
  const char* device; /* "auto", "cpu", "cuda", "cuda:N" */
  int num_threads;    /* 0: one per core */
  int64_t max_length;
  const char* media_root; /* NULL: the working directory */
  int allow_special;
  int compat_null;
  int frame_factor;     /* 32 or 64 */
  int64_t batch_tokens; /* 0: chosen for the device */
  int share_prefix;
  const char* dtype;          /* of activations: "auto"; "f32" on a CPU, "bf16" or "f16" on a GPU */
  int exact;                  /* the same bits whatever the batch; 0: any library algorithm */
  int64_t gpu_memory;         /* bytes, CUDA context included; 0: nine tenths of what is free */
  const char* quant;          /* a mode of docs/quantisation.md, for the decoder; NULL: as stored */
  int exif;                   /* turn images as their EXIF orientation says */
  const char* video_sampling; /* of video files: "official" or "uniform+ends"; NULL: official */
  double fps;                 /* official: frames taken from a second */
  int64_t max_frames;         /* official: at most; of a list of frames too */
  int64_t num_frames;         /* uniform+ends */
  int allow_remote;           /* media may be http(s) URLs, which lead to public addresses */
  int64_t vision_cache_bytes; /* of host memory for features of images and videos; 0: none */
  const char* vision_cache_dir; /* a folder that keeps them; NULL: none */
  const char* preset;           /* "high", "mid", "low" or "auto" (docs/memory.md); NULL: none */
  const char* device_map;       /* which layers are in host memory or on disk; NULL: none */
  const char* offload_folder;   /* for layers on disk; NULL: none */
} vlr_options;

typedef struct vlr_reranker vlr_reranker;
typedef struct vlr_request vlr_request;

/* Called in the thread of vlr_score once a document has its status. */
typedef void (*vlr_on_result)(void* user, const vlr_result* result);

VLR_API const char* vlr_version(void);
VLR_API const char* vlr_document_status_name(vlr_document_status status);
VLR_API vlr_options vlr_default_options(void);

/* `options` may be NULL. */
VLR_API vlr_code vlr_open(const char* path, const vlr_options* options, vlr_reranker** out,
                          vlr_error* error);
VLR_API void vlr_close(vlr_reranker* reranker); /* NULL is fine */

/* A request. Documents are numbered as they are added; VLR_QUERY stands for the query where a
 * document is asked for. */
#define VLR_QUERY ((int64_t)-1)
VLR_API vlr_request* vlr_request_new(void);
VLR_API void vlr_request_free(vlr_request* request); /* NULL is fine */
/* The official JSON form, as `vlr score` takes it. */
VLR_API vlr_code vlr_request_from_json(const char* json, vlr_request** out, vlr_error* error);
VLR_API vlr_code vlr_request_set_instruction(vlr_request* request, const char* text,
                                             vlr_error* error);
VLR_API vlr_code vlr_request_set_media_root(vlr_request* request, const char* path,
                                            vlr_error* error);
VLR_API vlr_code vlr_request_add_document(vlr_request* request, int64_t* index, vlr_error* error);
VLR_API int64_t vlr_request_num_documents(const vlr_request* request);
VLR_API vlr_code vlr_request_add_text(vlr_request* request, int64_t document, const char* text,
                                      vlr_error* error);
VLR_API vlr_code vlr_request_add_image_file(vlr_request* request, int64_t document,
                                            const char* path, vlr_error* error);
/* The bytes of an image file; `name` stands for it in messages. */
VLR_API vlr_code vlr_request_add_image(vlr_request* request, int64_t document, const char* name,
                                       const void* data, size_t size, vlr_error* error);
/* A video file, or the bytes of one. Where a path is asked for, file: and data: URIs will do too,
 * and http(s) URLs with vlr_options::allow_remote. */
VLR_API vlr_code vlr_request_add_video_file(vlr_request* request, int64_t document,
                                            const char* path, vlr_error* error);
VLR_API vlr_code vlr_request_add_video(vlr_request* request, int64_t document, const char* name,
                                       const void* data, size_t size, vlr_error* error);
/* A video as image files of its frames. */
VLR_API vlr_code vlr_request_add_frames(vlr_request* request, int64_t document,
                                        const char* const* paths, size_t num_paths,
                                        vlr_error* error);

/* Scores every document: results[i] is that of document i, and there are vlr_request_num_documents
 * of them. */
VLR_API vlr_code vlr_score(vlr_reranker* reranker, const vlr_request* request, vlr_result* results,
                           vlr_on_result on_result, void* user, vlr_error* error);
/* The same with the JSON object that `vlr score` prints; free it with vlr_string_free. */
VLR_API vlr_code vlr_score_json(vlr_reranker* reranker, const vlr_request* request, int explain,
                                char** json, vlr_error* error);
/* Decodes the images and videos of a request, its query's too, and keeps their features in the
 * vision cache; num_failed, if not NULL, gets how many could not be used. */
VLR_API vlr_code vlr_prefetch(vlr_reranker* reranker, const vlr_request* request,
                              int64_t* num_failed, vlr_error* error);
/* Ends a running vlr_score after its current batch; any thread. */
VLR_API void vlr_cancel(vlr_reranker* reranker);

/* Bytes that the model would take for a request of `documents` documents of `tokens` tokens. */
VLR_API vlr_code vlr_plan(const char* path, const vlr_options* options, int64_t documents,
                          int64_t tokens, int64_t* bytes, vlr_error* error);

VLR_API void vlr_string_free(char* text); /* NULL is fine */

#ifdef __cplusplus
}
#endif

#endif /* VLR_VLR_H_ */
