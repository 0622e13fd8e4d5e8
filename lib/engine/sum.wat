;; The internet checksum (RFC 1071) over a part of the memory, eight words at a time.
(module
  (import "arena" "memory" (memory 1))

  ;; The folded sum of $length bytes from $at on, in network order, not complemented. Sums of up to
  ;; 256 KiB do not overflow a lane.
  (func (export "sum") (param $at i32) (param $length i32) (result i32)
    (local $end i32)
    (local $lanes v128)
    (local $more v128)
    (local $sum i64)

    ;; 64 bytes a turn
    (local.set $end (i32.add (local.get $at) (i32.and (local.get $length) (i32.const -64))))
    (block $done
      (loop $turn
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $lanes (i32x4.add (local.get $lanes)
          (i32x4.extadd_pairwise_i16x8_u (v128.load align=1 (local.get $at)))))
        (local.set $more (i32x4.add (local.get $more)
          (i32x4.extadd_pairwise_i16x8_u (v128.load offset=16 align=1 (local.get $at)))))
        (local.set $lanes (i32x4.add (local.get $lanes)
          (i32x4.extadd_pairwise_i16x8_u (v128.load offset=32 align=1 (local.get $at)))))
        (local.set $more (i32x4.add (local.get $more)
          (i32x4.extadd_pairwise_i16x8_u (v128.load offset=48 align=1 (local.get $at)))))
        (local.set $at (i32.add (local.get $at) (i32.const 64)))
        (br $turn)))
    (local.set $lanes (i32x4.add (local.get $lanes) (local.get $more)))
    (local.set $sum (i64.add
      (i64.add
        (i64.extend_i32_u (i32x4.extract_lane 0 (local.get $lanes)))
        (i64.extend_i32_u (i32x4.extract_lane 1 (local.get $lanes))))
      (i64.add
        (i64.extend_i32_u (i32x4.extract_lane 2 (local.get $lanes)))
        (i64.extend_i32_u (i32x4.extract_lane 3 (local.get $lanes))))))

    ;; two bytes a turn
    (local.set $end (i32.add (local.get $at) (i32.and (local.get $length) (i32.const 62))))
    (block $done
      (loop $turn
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $sum (i64.add (local.get $sum) (i64.load16_u align=1 (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 2)))
        (br $turn)))
    (if (i32.and (local.get $length) (i32.const 1))
      (then (local.set $sum (i64.add (local.get $sum) (i64.load8_u (local.get $at))))))

    ;; three folds bring 35 bits to 16
    (local.set $sum (i64.add
      (i64.and (local.get $sum) (i64.const 0xffff)) (i64.shr_u (local.get $sum) (i64.const 16))))
    (local.set $sum (i64.add
      (i64.and (local.get $sum) (i64.const 0xffff)) (i64.shr_u (local.get $sum) (i64.const 16))))
    (local.set $sum (i64.add
      (i64.and (local.get $sum) (i64.const 0xffff)) (i64.shr_u (local.get $sum) (i64.const 16))))
    (local.set $end (i32.wrap_i64 (local.get $sum)))

    ;; the machine's words are little-endian
    (i32.or
      (i32.shr_u (local.get $end) (i32.const 8))
      (i32.shl (i32.and (local.get $end) (i32.const 0xff)) (i32.const 8)))))
