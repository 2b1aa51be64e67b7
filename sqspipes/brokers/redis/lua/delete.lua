-- Deletes a queue with all it holds, if it is there.
local queue = find(name)
if queue then
  local span, base = math.floor(now / SPAN), prefix .. ':' .. queue.origin .. ':ids:'
  call('HDEL', prefix .. ':queues', name)
  call('HDEL', prefix .. ':tags', name)
  drop(queue)
  call('UNLINK', base .. span, base .. (span - 1))
  -- Whoever waits is to find out.
  ring(queue)
  call('PEXPIRE', queue.bell, 60000)
end
return 1
